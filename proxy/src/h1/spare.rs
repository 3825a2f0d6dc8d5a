//! Buffers of one thread that were used and may be used again. What a request needs for microseconds is not asked of the
//! allocator each time; no more is kept than a thread has under way at once.

use std::cell::RefCell;
use std::thread::LocalKey;

/// Kept at most, of each kind.
const MOST: usize = 64;
/// A buffer of more than this is given back to the allocator.
pub(super) const KEPT: usize = 4096;

/// Things to be used again.
pub(super) type Spare<T> = RefCell<Vec<T>>;

thread_local! {
    static BYTES: Spare<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One of them, or a new one.
pub(super) fn take<T: Default>(from: &'static LocalKey<Spare<T>>) -> T {
    from.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Keeps one for another time.
pub(super) fn keep<T>(this: T, to: &'static LocalKey<Spare<T>>) {
    to.with_borrow_mut(|spare| {
        if spare.len() < MOST {
            spare.push(this);
        }
    });
}

/// An empty buffer.
pub(super) fn take_bytes() -> Vec<u8> {
    take(&BYTES)
}

/// Keeps a buffer for another time.
pub(super) fn keep_bytes(mut bytes: Vec<u8>) {
    if (1..=KEPT).contains(&bytes.capacity()) {
        bytes.clear();
        keep(bytes, &BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_much_is_kept_and_comes_back_empty() {
        keep_bytes(b"old".to_vec());
        let again = take_bytes();
        assert!(again.is_empty() && again.capacity() >= 3);
        assert_eq!(take_bytes().capacity(), 0);
        keep_bytes(Vec::with_capacity(KEPT + 1));
        keep_bytes(Vec::new());
        assert_eq!(take_bytes().capacity(), 0, "too large, or nothing at all");
        (0..2 * MOST).for_each(|_| keep_bytes(vec![0]));
        assert_eq!((0..2 * MOST).filter(|_| take_bytes().capacity() > 0).count(), MOST);
    }
}
