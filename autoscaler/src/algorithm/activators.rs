//! How many activators carry a revision (upstream `pkg/reconciler/autoscaling/kpa/kpa.go`).

/// Two at least, so that one may die; enough for all ready pods at full load plus the burst.
///
/// `burst` 0 means that the activator carries the revision only at zero; -1 (unlimited) adds no burst.
pub fn count(ready: i32, total_per_pod: f64, burst: f64, activator_capacity: f64) -> i32 {
    const MIN: i32 = 2;
    if burst == 0.0 {
        return MIN;
    }
    let capacity = f64::from(ready) * total_per_pod + burst.max(0.0);
    ((capacity / activator_capacity).ceil() as i32).max(MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s58() {
        for (ready, total, burst, want) in [
            (0, 100.0, 200.0, 2),
            (1, 100.0, 200.0, 3),
            (100, 100.0, 0.0, 2),
            (5, 100.0, -1.0, 5),
            (15, 100.0, 200.0, 17),
        ] {
            assert_eq!(count(ready, total, burst, 100.0), want, "{ready} pods, burst {burst}");
        }
    }
}
