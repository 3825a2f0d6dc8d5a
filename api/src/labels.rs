//! Keys of labels and annotations (upstream `pkg/apis/{serving,autoscaling}/register.go`, `networking/register.go`).

/// `serving.knative.dev/…`
pub mod serving {
    /// Label: Configuration a Revision came from.
    pub const CONFIGURATION: &str = "serving.knative.dev/configuration";
    /// Label: generation of the Configuration a Revision came from.
    pub const CONFIGURATION_GENERATION: &str = "serving.knative.dev/configurationGeneration";
    /// Label: UID of that Configuration.
    pub const CONFIGURATION_UID: &str = "serving.knative.dev/configurationUID";
    /// Label: Revision an object belongs to.
    pub const REVISION: &str = "serving.knative.dev/revision";
    /// Label: UID of that Revision.
    pub const REVISION_UID: &str = "serving.knative.dev/revisionUID";
    /// Label: Route an object belongs to.
    pub const ROUTE: &str = "serving.knative.dev/route";
    /// Label: namespace of that Route.
    pub const ROUTE_NAMESPACE: &str = "serving.knative.dev/routeNamespace";
    /// Label of an Ingress: uid of the DomainMapping it was made for.
    pub const DOMAIN_MAPPING_UID: &str = "serving.knative.dev/domainMappingUID";
    /// Label: namespace of that DomainMapping.
    pub const DOMAIN_MAPPING_NAMESPACE: &str = "serving.knative.dev/domainMappingNamespace";
    /// Label: `pending`, `active` or `reserve`.
    pub const ROUTING_STATE: &str = "serving.knative.dev/routingState";
    /// Label: Service an object belongs to.
    pub const SERVICE: &str = "serving.knative.dev/service";
    /// Label: UID of that Service.
    pub const SERVICE_UID: &str = "serving.knative.dev/serviceUID";
    /// Annotation: user who made the object.
    pub const CREATOR: &str = "serving.knative.dev/creator";
    /// Annotation: user who changed the spec last.
    pub const LAST_MODIFIER: &str = "serving.knative.dev/lastModifier";
    /// Annotation: `true` keeps a Revision from being collected.
    pub const NO_GC: &str = "serving.knative.dev/no-gc";
    /// Annotation: Routes that reference a Revision, comma separated.
    pub const ROUTES: &str = "serving.knative.dev/routes";
    /// Annotation: when the routing state last changed.
    pub const ROUTING_STATE_MODIFIED: &str = "serving.knative.dev/routingStateModified";
    /// Annotation: how long a new revision takes over traffic.
    pub const ROLLOUT_DURATION: &str = "serving.knative.dev/rollout-duration";
    /// Its older name.
    pub const ROLLOUT_DURATION_OLD: &str = "serving.knative.dev/rolloutDuration";
    /// Annotation: how long a Deployment may take to make progress.
    pub const PROGRESS_DEADLINE: &str = "serving.knative.dev/progress-deadline";
    /// Annotation: `enabled` lets HTTP/1 responses start before the request ended.
    pub const HTTP_FULL_DUPLEX: &str = "features.knative.dev/http-full-duplex";
}

/// `autoscaling.knative.dev/…`: every annotation with the old spelling it also answers to.
pub mod autoscaling {
    use std::collections::BTreeMap;

    /// A setting that a revision can override.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Annotation {
        /// The key to write.
        pub key: &'static str,
        /// An older spelling that is read too; the first one present wins.
        pub alias: Option<&'static str>,
    }

    impl Annotation {
        /// The key actually present and its value.
        pub fn get<'a>(&self, annotations: &'a BTreeMap<String, String>) -> Option<(&'static str, &'a str)> {
            std::iter::once(self.key)
                .chain(self.alias)
                .find_map(|key| annotations.get(key).map(|value| (key, value.as_str())))
        }
        /// The value, whichever spelling it has.
        pub fn value<'a>(&self, annotations: &'a BTreeMap<String, String>) -> Option<&'a str> {
            self.get(annotations).map(|(_, value)| value)
        }
    }

    macro_rules! annotations {
        ($($(#[$doc:meta])* $name:ident = $key:literal $(| $alias:literal)?;)*) => {
            $($(#[$doc])* pub const $name: Annotation = Annotation {
                key: concat!("autoscaling.knative.dev/", $key),
                alias: annotations!(@alias $($alias)?),
            };)*
            /// All of them, for validation of unknown keys.
            pub const ALL: &[Annotation] = &[$($name),*];
        };
        (@alias) => { None };
        (@alias $alias:literal) => { Some(concat!("autoscaling.knative.dev/", $alias)) };
    }

    annotations! {
        /// Which autoscaler: [`KPA_CLASS`] or [`HPA_CLASS`].
        CLASS = "class";
        /// `concurrency`, `rps`, or for HPA `cpu`, `memory`, a custom name.
        METRIC = "metric";
        /// Wanted load per pod.
        TARGET = "target";
        /// Percent of the target at which to add pods.
        TARGET_UTILIZATION_PERCENTAGE = "target-utilization-percentage" | "targetUtilizationPercentage";
        /// Spare capacity to keep; -1 = unlimited, 0 = none.
        TARGET_BURST_CAPACITY = "target-burst-capacity" | "targetBurstCapacity";
        /// Fewest pods.
        MIN_SCALE = "min-scale" | "minScale";
        /// Most pods; 0 = no limit.
        MAX_SCALE = "max-scale" | "maxScale";
        /// Pods a new revision starts with.
        INITIAL_SCALE = "initial-scale" | "initialScale";
        /// Fewest pods when scaling from zero.
        ACTIVATION_SCALE = "activation-scale";
        /// How long lower load must last before pods go.
        SCALE_DOWN_DELAY = "scale-down-delay" | "scaleDownDelay";
        /// Stable window.
        WINDOW = "window";
        /// Panic window as percent of the stable one.
        PANIC_WINDOW_PERCENTAGE = "panic-window-percentage" | "panicWindowPercentage";
        /// Load, as percent of what the pods can take, at which panic begins.
        PANIC_THRESHOLD_PERCENTAGE = "panic-threshold-percentage" | "panicThresholdPercentage";
        /// How long the last pod stays after the last request.
        SCALE_TO_ZERO_POD_RETENTION_PERIOD = "scale-to-zero-pod-retention-period" | "scaleToZeroPodRetentionPeriod";
        /// `linear` or `weighted-exponential`.
        METRIC_AGGREGATION_ALGORITHM = "metric-aggregation-algorithm" | "metricAggregationAlgorithm";
    }

    /// Class of our own autoscaler.
    pub const KPA_CLASS: &str = "kpa.autoscaling.knative.dev";
    /// Class that hands the revision to a HorizontalPodAutoscaler.
    pub const HPA_CLASS: &str = "hpa.autoscaling.knative.dev";
}

/// `networking.knative.dev/…` and `networking.internal.knative.dev/…`
pub mod networking {
    /// Annotation: which ingress implementation serves an Ingress.
    pub const INGRESS_CLASS: &str = "networking.knative.dev/ingress.class";
    /// Our own gateway's class.
    pub const DORMOUSE_INGRESS_CLASS: &str = "dormouse.ingress.networking.knative.dev";
    /// Annotation: which layer fulfils a Certificate.
    pub const CERTIFICATE_CLASS: &str = "networking.knative.dev/certificate.class";
    /// [`CERTIFICATE_CLASS`] in its other spelling.
    pub const CERTIFICATE_CLASS_OLD: &str = "networking.knative.dev/certificate-class";
    /// The class that cert-manager fulfils.
    pub const CERT_MANAGER_CLASS: &str = "cert-manager.certificate.networking.knative.dev";
    /// Label on a Certificate: for which of the three TLS settings it is.
    pub const CERTIFICATE_TYPE: &str = "networking.knative.dev/certificate-type";
    /// `external-domain-tls`.
    pub const EXTERNAL_DOMAIN: &str = "external-domain";
    /// `cluster-local-domain-tls`.
    pub const CLUSTER_LOCAL_DOMAIN: &str = "cluster-local-domain";
    /// `system-internal-tls`.
    pub const SYSTEM_INTERNAL: &str = "system-internal";
    /// Label on a Certificate for all hosts of a domain: which.
    pub const WILDCARD_DOMAIN: &str = "networking.knative.dev/wildcardDomain";
    /// Label on the Secret of a Certificate: its UID.
    pub const CERTIFICATE_UID: &str = "networking.internal.knative.dev/certificate-uid";
    /// Annotation: no certificate for the hosts of this object, in its three spellings.
    pub const NO_EXTERNAL_DOMAIN_TLS: [&str; 3] = [
        "networking.knative.dev/disable-external-domain-tls",
        "networking.knative.dev/disable-auto-tls",
        "networking.knative.dev/disableAutoTLS",
    ];
    /// Label: `cluster-local` keeps a Route off the external gateway.
    pub const VISIBILITY: &str = "networking.knative.dev/visibility";
    /// The value of [`VISIBILITY`] that means so.
    pub const CLUSTER_LOCAL: &str = "cluster-local";
    /// Label on Endpoints and Services of a ServerlessService: [`SERVICE_TYPE_PUBLIC`] or [`SERVICE_TYPE_PRIVATE`].
    pub const SERVICE_TYPE: &str = "networking.internal.knative.dev/serviceType";
    /// Endpoints that clients use: activators, or pods in Serve mode.
    pub const SERVICE_TYPE_PUBLIC: &str = "Public";
    /// Endpoints that are the pods.
    pub const SERVICE_TYPE_PRIVATE: &str = "Private";
    /// Label: ServerlessService an object belongs to.
    pub const SKS: &str = "networking.internal.knative.dev/serverlessservice";
    /// Label on ConfigMaps of the system namespace whose values are certificates of authorities (PEM).
    pub const TRUST_BUNDLE: &str = "networking.knative.dev/trust-bundle";
    /// Annotation on an Ingress: rollout state (JSON).
    pub const ROLLOUT: &str = "networking.internal.knative.dev/rollout";
}

/// Namespace in which the ConfigMaps, Leases and the activator's Endpoints live.
pub const SYSTEM_NAMESPACE: &str = "knative-serving";
