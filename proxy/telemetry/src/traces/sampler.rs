//! Which requests are traced: one pure decision by the caller's decision and the trace id.

use super::ids::TraceId;

/// How it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// Whether a caller's decision holds.
    follows_caller: bool,
    root: Root,
}

/// How it is decided where nobody has decided before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    Always,
    Never,
    /// A share of all trace ids: those whose low half, less its last bit, is below this. All OpenTelemetry samplers
    /// count so; two hops with one rate pick the same traces.
    Below(u64),
}

/// What the settings ask for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes<'a> {
    /// Traces go to stdout: somebody is looking.
    pub stdout: bool,
    /// `tracing.samplingRate`.
    pub rate: f64,
    /// `OTEL_TRACES_SAMPLER`; empty is unset.
    pub sampler: &'a str,
    /// `OTEL_TRACES_SAMPLER_ARG`; empty is unset.
    pub argument: &'a str,
}

impl Sampler {
    const fn new(follows_caller: bool, root: Root) -> Self {
        Self { follows_caller, root }
    }

    /// The sampler for some wishes, and the variables that make no sense and are passed over. Upstream's rules: a rate of
    /// 1 or more, or 0 or less, is final, whatever the caller has decided; in between the caller's decision holds.
    pub fn choose(wishes: &Wishes<'_>) -> (Self, Vec<&'static str>) {
        let argument: Option<f64> = wishes.argument.parse().ok().filter(|rate: &f64| rate.is_finite());
        let mut ignored = Vec::new();
        if !wishes.argument.is_empty() && argument.is_none() {
            ignored.push("OTEL_TRACES_SAMPLER_ARG");
        }
        let ratio = || share(argument.unwrap_or(1.0));
        let named = match wishes.sampler {
            "always_on" => Some(Self::new(false, Root::Always)),
            "always_off" => Some(Self::new(false, Root::Never)),
            "traceidratio" => Some(Self::new(false, ratio())),
            "parentbased_always_on" => Some(Self::new(true, Root::Always)),
            "parentbased_always_off" => Some(Self::new(true, Root::Never)),
            "parentbased_traceidratio" => Some(Self::new(true, ratio())),
            "" => None,
            _ => {
                ignored.push("OTEL_TRACES_SAMPLER");
                None
            }
        };
        // Without a sampler by name the argument can raise the rate to "always" and do nothing else.
        let raised = argument.is_some_and(|rate| rate >= 1.0);
        let by_rate = match share(wishes.rate) {
            _ if wishes.stdout || raised => Self::new(false, Root::Always),
            Root::Below(bound) => Self::new(true, Root::Below(bound)),
            fixed => Self::new(false, fixed),
        };
        (named.unwrap_or(by_rate), ignored)
    }

    /// Whether no request is ever traced.
    pub fn is_off(self) -> bool {
        self == Self::new(false, Root::Never)
    }

    /// Whether a request is traced. `caller`: what was decided before it came.
    pub fn decide(self, caller: Option<bool>, trace: TraceId) -> bool {
        match (caller.filter(|_| self.follows_caller), self.root) {
            (Some(decided), _) => decided,
            (None, Root::Always) => true,
            (None, Root::Never) => false,
            (None, Root::Below(bound)) => trace.low() >> 1 < bound,
        }
    }
}

fn share(rate: f64) -> Root {
    if rate >= 1.0 {
        Root::Always
    } else if rate > 0.0 {
        Root::Below((rate * 2_f64.powi(63)) as u64)
    } else {
        Root::Never
    }
}

#[cfg(test)]
mod tests {
    use super::super::ids::Ids;
    use super::*;

    const HALF: Root = Root::Below(1 << 62);

    #[test]
    fn wishes_follow_the_table() {
        let wish = |stdout, rate, sampler, argument| Wishes { stdout, rate, sampler, argument };
        for (wishes, expected) in [
            (wish(false, 0.0, "", ""), Sampler::new(false, Root::Never)),
            (wish(false, -1.0, "", ""), Sampler::new(false, Root::Never)),
            (wish(false, 1.0, "", ""), Sampler::new(false, Root::Always)),
            (wish(false, 7.0, "", ""), Sampler::new(false, Root::Always)),
            (wish(false, 0.5, "", ""), Sampler::new(true, HALF)),
            (wish(true, 0.0, "", ""), Sampler::new(false, Root::Always)),
            (wish(true, 0.0, "always_off", ""), Sampler::new(false, Root::Never)),
            (wish(false, 0.5, "", "1"), Sampler::new(false, Root::Always)),
            (wish(false, 0.0, "", "1.5"), Sampler::new(false, Root::Always)),
            (wish(false, 0.5, "", "0.1"), Sampler::new(true, HALF)),
            (wish(false, 0.0, "", "0.5"), Sampler::new(false, Root::Never)),
            (wish(false, 0.0, "always_on", ""), Sampler::new(false, Root::Always)),
            (wish(false, 1.0, "parentbased_always_on", ""), Sampler::new(true, Root::Always)),
            (wish(false, 1.0, "parentbased_always_off", ""), Sampler::new(true, Root::Never)),
            (wish(false, 0.0, "traceidratio", "0.5"), Sampler::new(false, HALF)),
            (wish(false, 0.0, "parentbased_traceidratio", "0.5"), Sampler::new(true, HALF)),
            (wish(false, 0.0, "parentbased_traceidratio", ""), Sampler::new(true, Root::Always)),
        ] {
            assert_eq!(Sampler::choose(&wishes), (expected, vec![]), "{wishes:?}");
        }
        let junk = Sampler::choose(&wish(false, 0.5, "jaeger_remote", "a lot"));
        assert_eq!(junk, (Sampler::new(true, HALF), vec!["OTEL_TRACES_SAMPLER_ARG", "OTEL_TRACES_SAMPLER"]));
        assert_eq!(Sampler::choose(&wish(false, 0.5, "", "NaN")).1, ["OTEL_TRACES_SAMPLER_ARG"]);
    }

    #[test]
    fn decisions_follow_the_table() {
        let (low, high) = (TraceId([0x7f; 16]), TraceId([0x80; 16]));
        for (sampler, caller, trace, expected) in [
            (Sampler::new(false, Root::Always), Some(false), low, true),
            (Sampler::new(false, Root::Never), Some(true), low, false),
            (Sampler::new(true, HALF), Some(true), high, true),
            (Sampler::new(true, HALF), Some(false), low, false),
            (Sampler::new(true, HALF), None, low, true),
            (Sampler::new(true, HALF), None, high, false),
            (Sampler::new(false, HALF), Some(true), high, false),
            (Sampler::new(true, Root::Never), Some(true), low, true),
        ] {
            assert_eq!(sampler.decide(caller, trace), expected, "{sampler:?} {caller:?} {trace:?}");
        }
    }

    #[test]
    fn a_rate_is_met() {
        let mut ids = Ids::seeded(1, 2);
        let sampler = Sampler::new(true, share(0.1));
        let sampled = (0..100_000).filter(|_| sampler.decide(None, ids.trace())).count();
        assert!((9_500..10_500).contains(&sampled), "{sampled}");
    }
}
