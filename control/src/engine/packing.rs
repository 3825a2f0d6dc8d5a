//! Objects as few bytes: JSON by LZ4 with a dictionary. Objects of one kind say mostly the same, so what others of the
//! kind looked like is the best dictionary there is; with it an object takes a fraction of what it takes alone. Pure.
//!
//! A dictionary lives as long as objects packed with it. It is renewed ever more rarely, so there are few of them.

use std::{error::Error, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};

/// Largest dictionary: a few objects of the large kinds. It is read again for each object that is packed.
const LARGEST: usize = 16 << 10;
/// The dictionary is renewed when so many times as many objects were packed as at the last time.
const GROWTH: u64 = 4;

/// One object, packed.
#[derive(Debug, Clone)]
pub struct Packed {
    bytes: Box<[u8]>,
    dictionary: Arc<[u8]>,
}

impl Packed {
    /// The object.
    pub fn unpack<K: DeserializeOwned>(&self) -> Result<K, Box<dyn Error>> {
        let text = lz4_flex::block::decompress_size_prepended_with_dict(&self.bytes, &self.dictionary)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// Packs the objects of one kind.
#[derive(Debug)]
pub struct Packer {
    dictionary: Arc<[u8]>,
    packed: u64,
    renew_at: u64,
}

impl Default for Packer {
    fn default() -> Self {
        Self { dictionary: Arc::default(), packed: 0, renew_at: 1 }
    }
}

impl Packer {
    /// Packs an object. It fails only for objects that are not text, of which there are none here.
    pub fn pack<K: Serialize>(&mut self, object: &K) -> Result<Packed, serde_json::Error> {
        let text = serde_json::to_vec(object)?;
        let bytes = lz4_flex::block::compress_prepend_size_with_dict(&text, &self.dictionary).into();
        let packed = Packed { bytes, dictionary: Arc::clone(&self.dictionary) };
        self.packed += 1;
        if self.packed == self.renew_at {
            self.renew_at *= GROWTH;
            self.learn(&text);
        }
        Ok(packed)
    }

    /// The newest at the end, where it is nearest to what follows; what is oldest goes.
    fn learn(&mut self, text: &[u8]) {
        let kept = LARGEST.saturating_sub(text.len()).min(self.dictionary.len());
        let old = &self.dictionary[self.dictionary.len() - kept..];
        self.dictionary = [old, &text[text.len().saturating_sub(LARGEST)..]].concat().into();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn object(n: usize) -> Value {
        json!({ "metadata": { "name": format!("hello-{n:05}"), "uid": format!("{n:036x}") },
            "spec": { "containers": [{ "image": "dev.local/hello", "env": [{ "name": "TARGET", "value": "World" }],
                "readinessProbe": { "successThreshold": 1, "tcpSocket": { "port": 0 } } }] } })
    }

    #[test]
    fn the_second_of_a_kind_takes_little() {
        let mut packer = Packer::default();
        let sizes: Vec<usize> = (0..100).map(|n| packer.pack(&object(n)).unwrap().bytes.len()).collect();
        let text = object(0).to_string().len();
        assert!(sizes[1..].iter().all(|size| size * 3 < text), "{text} {sizes:?}");
    }

    #[test]
    fn dictionaries_are_few_and_bounded() {
        let mut packer = Packer::default();
        let packed: Vec<Packed> = (0..5000).map(|n| packer.pack(&object(n)).unwrap()).collect();
        let mut dictionaries: Vec<_> = packed.iter().map(|one| one.dictionary.as_ptr()).collect();
        dictionaries.sort();
        dictionaries.dedup();
        assert!(dictionaries.len() <= 8, "{}", dictionaries.len());
        assert!(packed.iter().all(|one| one.dictionary.len() <= LARGEST));
        for (n, one) in packed.iter().enumerate() {
            assert_eq!(one.unpack::<Value>().unwrap(), object(n));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_packed_is_what_comes_out(objects in prop::collection::vec(("\\PC{0,20}", 0..1500_usize, 0..3_usize), 1..20)) {
            let mut packer = Packer::default();
            for (text, times, n) in objects {
                let object = json!({ "text": text.repeat(times), "like": object(n) });
                let packed = packer.pack(&object).unwrap();
                prop_assert_eq!(packed.unpack::<Value>().unwrap(), object);
                prop_assert!(packer.dictionary.len() <= LARGEST);
            }
        }
    }
}
