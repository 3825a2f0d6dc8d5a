//! Min, max and initial scale (upstream `pkg/reconciler/autoscaling/kpa/scaler.go`).

use super::scaling::RevisionScaling;

/// Which bound moved a wanted scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clamp {
    /// Raised to the min scale.
    Min,
    /// Raised to the initial scale, which the revision has not reached yet.
    Initial,
    /// Lowered to the max scale.
    Max,
    /// Raised to the pods that are kept warm.
    KeepWarm,
}

/// `wanted` within the revision's bounds. `initialized`: the revision has had its initial scale once. `warm`: pods that
/// are kept warm now.
pub fn clamp(
    wanted: i32,
    scaling: &RevisionScaling,
    unreachable: bool,
    initialized: bool,
    warm: i32,
) -> (i32, Option<Clamp>) {
    let mut min = if unreachable { 0 } else { scaling.min_scale };
    let mut which = Clamp::Min;
    if scaling.initial_scale > 1 && !initialized && !unreachable && scaling.initial_scale > min {
        min = scaling.initial_scale;
        which = Clamp::Initial;
    }
    // Kept warm is a wish; the limit stands.
    let warm = if scaling.max_scale == 0 { warm } else { warm.min(scaling.max_scale) };
    if !unreachable && warm > min {
        min = warm;
        which = Clamp::KeepWarm;
    }
    if wanted < min {
        (min, Some(which))
    } else if scaling.max_scale != 0 && wanted > scaling.max_scale {
        (scaling.max_scale, Some(Clamp::Max))
    } else {
        (wanted, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s64_s65_bounds() {
        // min, max, initial, initialized, unreachable, wanted → scale
        let table = [
            (2, 0, 1, true, false, 0, 2),
            (2, 0, 1, true, true, 0, 0),
            (0, 8, 1, true, false, 10, 8),
            (0, 0, 2, false, false, 1, 2),
            (0, 0, 5, false, false, 1, 5),
            (0, 0, 2, true, false, 1, 1),
            (0, 0, 2, false, true, 1, 1),
            (0, 0, 1, false, false, -1, 0),
            (3, 0, 2, false, false, 1, 3),
        ];
        for (min, max, initial, initialized, unreachable, wanted, want) in table {
            let scaling = RevisionScaling {
                min_scale: min,
                max_scale: max,
                initial_scale: initial,
                ..RevisionScaling::default()
            };
            let got = clamp(wanted, &scaling, unreachable, initialized, 0).0;
            assert_eq!(got, want, "min {min} max {max} initial {initial} wanted {wanted}");
        }
    }

    #[test]
    fn kept_warm_is_a_min_scale_below_the_limit() {
        let scaling = RevisionScaling { max_scale: 3, ..RevisionScaling::default() };
        assert_eq!(clamp(0, &scaling, false, true, 2), (2, Some(Clamp::KeepWarm)));
        assert_eq!(clamp(0, &scaling, false, true, 9), (3, Some(Clamp::KeepWarm)));
        assert_eq!(clamp(0, &scaling, true, true, 2), (0, None), "nobody can reach it");
    }

    proptest::proptest! {
        #[test]
        fn never_outside_the_bounds(
            wanted in 0i32..5000, min in 0i32..50, more in 0i32..50, initial in 0i32..120, warm in 0i32..200,
        ) {
            let scaling = RevisionScaling {
                min_scale: min, max_scale: min + more + 1, initial_scale: initial, ..RevisionScaling::default()
            };
            let (initialized, _) = clamp(wanted, &scaling, false, true, warm);
            proptest::prop_assert!((min..=min + more + 1).contains(&initialized));
        }
    }
}
