//! Port numbers that other components rely on (upstream `pkg/networking/constants.go`).

/// queue-proxy and activator: HTTP/1.1 (both ports speak h1 and h2c; the number is a convention).
pub const HTTP1: u16 = 8012;
/// queue-proxy and activator: h2c.
pub const H2C: u16 = 8013;
/// queue-proxy and activator: TLS, only with system-internal-tls.
pub const HTTPS: u16 = 8112;
/// queue-proxy: `/wait-for-drain`.
pub const QUEUE_ADMIN: u16 = 8022;
/// queue-proxy: the stat that the autoscaler scrapes.
pub const AUTOSCALING_METRICS: u16 = 9090;
/// queue-proxy: Prometheus text for the user.
pub const USER_METRICS: u16 = 9091;
/// All: profiling.
pub const PROFILING: u16 = 8008;
/// autoscaler: the stat websocket.
pub const AUTOSCALER: u16 = 8080;

/// Name of the private Service's HTTP/1 data port.
pub const NAME_HTTP1: &str = "http";
/// Name of the private Service's h2c data port.
pub const NAME_H2C: &str = "http2";
/// Name of the autoscaling metrics port on the private Service.
pub const NAME_AUTOSCALING_METRICS: &str = "http-autometric";
/// Name of the user metrics port on the private Service.
pub const NAME_USER_METRICS: &str = "http-usermetric";
/// Name of queue-proxy's data port in the pod.
pub const NAME_QUEUE: &str = "queue-port";
