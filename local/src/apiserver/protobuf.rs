//! Protobuf bodies: `kubectl create` and `kubectl auth` send built-in kinds in it, whatever the server offers.
//!
//! Pure. Only request bodies are read, answers are always JSON; only the messages in [`MESSAGES`], which are what
//! those commands make. A field that is not listed is refused by number rather than lost.
use serde_json::{Map, Value, json};

/// Four bytes before every Kubernetes protobuf body.
const MAGIC: &[u8] = b"k8s\0";
/// How deep messages may nest.
const MAX_DEPTH: usize = 24;

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ProtobufError {
    /// Not protobuf, or cut off.
    #[error("the protobuf body is not complete")]
    Malformed,
    /// A kind that is not listed.
    #[error("{0} is not understood in protobuf; send application/json")]
    Kind(String),
    /// A field that is not listed.
    #[error("field {1} of {0} is not understood in protobuf; send application/json")]
    Field(&'static str, u64),
}

/// How a field is written.
#[derive(Debug, Clone, Copy)]
enum Type {
    /// A string; empty is absent.
    Text,
    /// A number that is absent when 0.
    Number,
    /// A number that counts when it is there (`*int32`).
    SetNumber,
    /// A boolean that is absent when false.
    Flag,
    /// A boolean that counts when it is there.
    SetFlag,
    /// A message; empty is absent.
    Of(&'static str),
    /// A message that counts when it is there, even empty.
    SetOf(&'static str),
    /// Strings.
    Texts,
    /// Messages.
    Many(&'static str),
    /// `map<string, string>`.
    Labels,
    /// `map<string, bytes>`, in base64.
    Blobs,
    /// `map<string, Quantity>`.
    Quantities,
    /// `IntOrString`.
    Either,
}

use Type::{Blobs, Either, Flag, Labels, Many, Number, Of, Quantities, SetFlag, SetNumber, SetOf, Text, Texts};

type Fields = &'static [(u64, &'static str, Type)];

/// Messages with their fields; numbers from Kubernetes' `generated.proto` files, which never change.
const MESSAGES: &[(&str, Fields)] = &[
    ("Namespace", &[(1, "metadata", Of("ObjectMeta")), (2, "spec", Of("NamespaceSpec")), (3, "status", Of("Phase"))]),
    ("NamespaceSpec", &[(1, "finalizers", Texts)]),
    ("Phase", &[(1, "phase", Text)]),
    (
        "ConfigMap",
        &[(1, "metadata", Of("ObjectMeta")), (2, "data", Labels), (3, "binaryData", Blobs), (4, "immutable", SetFlag)],
    ),
    (
        "Secret",
        &[
            (1, "metadata", Of("ObjectMeta")),
            (2, "data", Blobs),
            (3, "type", Text),
            (4, "stringData", Labels),
            (5, "immutable", SetFlag),
        ],
    ),
    (
        "ServiceAccount",
        &[
            (1, "metadata", Of("ObjectMeta")),
            (3, "imagePullSecrets", Many("LocalObjectReference")),
            (4, "automountServiceAccountToken", SetFlag),
        ],
    ),
    ("LocalObjectReference", &[(1, "name", Text)]),
    (
        "ObjectMeta",
        &[
            (1, "name", Text),
            (2, "generateName", Text),
            (3, "namespace", Text),
            (4, "selfLink", Text),
            (5, "uid", Text),
            (6, "resourceVersion", Text),
            (7, "generation", Number),
            // Times are the server's to write; in a request they are empty.
            (8, "creationTimestamp", Of("Empty")),
            (11, "labels", Labels),
            (12, "annotations", Labels),
            (13, "ownerReferences", Many("OwnerReference")),
            (14, "finalizers", Texts),
        ],
    ),
    ("Empty", &[]),
    (
        "OwnerReference",
        &[
            (1, "kind", Text),
            (3, "name", Text),
            (4, "uid", Text),
            (5, "apiVersion", Text),
            (6, "controller", SetFlag),
            (7, "blockOwnerDeletion", SetFlag),
        ],
    ),
    (
        "Service",
        &[(1, "metadata", Of("ObjectMeta")), (2, "spec", Of("ServiceSpec")), (3, "status", Of("ServiceStatus"))],
    ),
    ("ServiceStatus", &[(1, "loadBalancer", Of("Empty"))]),
    (
        "ServiceSpec",
        &[
            (1, "ports", Many("ServicePort")),
            (2, "selector", Labels),
            (3, "clusterIP", Text),
            (4, "type", Text),
            (5, "externalIPs", Texts),
            (7, "sessionAffinity", Text),
            (8, "loadBalancerIP", Text),
            (9, "loadBalancerSourceRanges", Texts),
            (10, "externalName", Text),
            (11, "externalTrafficPolicy", Text),
            (12, "healthCheckNodePort", Number),
            (13, "publishNotReadyAddresses", Flag),
            (17, "ipFamilyPolicy", Text),
            (18, "clusterIPs", Texts),
            (19, "ipFamilies", Texts),
            (20, "allocateLoadBalancerNodePorts", SetFlag),
            (21, "loadBalancerClass", Text),
            (22, "internalTrafficPolicy", Text),
        ],
    ),
    (
        "ServicePort",
        &[
            (1, "name", Text),
            (2, "protocol", Text),
            (3, "port", Number),
            (4, "targetPort", Either),
            (5, "nodePort", Number),
            (6, "appProtocol", Text),
        ],
    ),
    (
        "Deployment",
        &[(1, "metadata", Of("ObjectMeta")), (2, "spec", Of("DeploymentSpec")), (3, "status", Of("DeploymentStatus"))],
    ),
    (
        "DeploymentStatus",
        &[
            (1, "observedGeneration", Number),
            (2, "replicas", Number),
            (3, "updatedReplicas", Number),
            (4, "availableReplicas", Number),
            (5, "unavailableReplicas", Number),
            (7, "readyReplicas", Number),
        ],
    ),
    (
        "DeploymentSpec",
        &[
            (1, "replicas", SetNumber),
            (2, "selector", SetOf("LabelSelector")),
            (3, "template", Of("PodTemplateSpec")),
            (4, "strategy", Of("DeploymentStrategy")),
            (5, "minReadySeconds", Number),
            (6, "revisionHistoryLimit", SetNumber),
            (7, "paused", Flag),
            (9, "progressDeadlineSeconds", SetNumber),
        ],
    ),
    ("DeploymentStrategy", &[(1, "type", Text), (2, "rollingUpdate", SetOf("RollingUpdate"))]),
    ("RollingUpdate", &[(1, "maxUnavailable", Either), (2, "maxSurge", Either)]),
    ("LabelSelector", &[(1, "matchLabels", Labels), (2, "matchExpressions", Many("LabelSelectorRequirement"))]),
    ("LabelSelectorRequirement", &[(1, "key", Text), (2, "operator", Text), (3, "values", Texts)]),
    ("PodTemplateSpec", &[(1, "metadata", Of("ObjectMeta")), (2, "spec", Of("PodSpec"))]),
    ("Pod", &[(1, "metadata", Of("ObjectMeta")), (2, "spec", Of("PodSpec")), (3, "status", Of("Phase"))]),
    (
        "PodSpec",
        &[
            (2, "containers", Many("Container")),
            (3, "restartPolicy", Text),
            (4, "terminationGracePeriodSeconds", SetNumber),
            (5, "activeDeadlineSeconds", SetNumber),
            (6, "dnsPolicy", Text),
            (7, "nodeSelector", Labels),
            (8, "serviceAccountName", Text),
            (9, "serviceAccount", Text),
            (10, "nodeName", Text),
            (11, "hostNetwork", Flag),
            (12, "hostPID", Flag),
            (13, "hostIPC", Flag),
            (14, "securityContext", SetOf("Empty")),
            (15, "imagePullSecrets", Many("LocalObjectReference")),
            (16, "hostname", Text),
            (17, "subdomain", Text),
            (19, "schedulerName", Text),
            (20, "initContainers", Many("Container")),
            (21, "automountServiceAccountToken", SetFlag),
        ],
    ),
    (
        "Container",
        &[
            (1, "name", Text),
            (2, "image", Text),
            (3, "command", Texts),
            (4, "args", Texts),
            (5, "workingDir", Text),
            (6, "ports", Many("ContainerPort")),
            (7, "env", Many("EnvVar")),
            (8, "resources", Of("ResourceRequirements")),
            (13, "terminationMessagePath", Text),
            (14, "imagePullPolicy", Text),
            (16, "stdin", Flag),
            (17, "stdinOnce", Flag),
            (18, "tty", Flag),
            (20, "terminationMessagePolicy", Text),
        ],
    ),
    (
        "ContainerPort",
        &[
            (1, "name", Text),
            (2, "hostPort", Number),
            (3, "containerPort", Number),
            (4, "protocol", Text),
            (5, "hostIP", Text),
        ],
    ),
    ("EnvVar", &[(1, "name", Text), (2, "value", Text)]),
    ("ResourceRequirements", &[(1, "limits", Quantities), (2, "requests", Quantities)]),
    (
        "SelfSubjectAccessReview",
        &[
            (1, "metadata", Of("ObjectMeta")),
            (2, "spec", Of("SelfSubjectAccessReviewSpec")),
            (3, "status", Of("ReviewStatus")),
        ],
    ),
    (
        "SelfSubjectAccessReviewSpec",
        &[
            (1, "resourceAttributes", SetOf("ResourceAttributes")),
            (2, "nonResourceAttributes", SetOf("NonResourceAttributes")),
        ],
    ),
    (
        "ResourceAttributes",
        &[
            (1, "namespace", Text),
            (2, "verb", Text),
            (3, "group", Text),
            (4, "version", Text),
            (5, "resource", Text),
            (6, "subresource", Text),
            (7, "name", Text),
        ],
    ),
    ("NonResourceAttributes", &[(1, "path", Text), (2, "verb", Text)]),
    ("ReviewStatus", &[(1, "allowed", Flag), (2, "reason", Text), (3, "evaluationError", Text), (4, "denied", Flag)]),
    (
        "SelfSubjectRulesReview",
        &[
            (1, "metadata", Of("ObjectMeta")),
            (2, "spec", Of("SelfSubjectRulesReviewSpec")),
            (3, "status", Of("RulesStatus")),
        ],
    ),
    ("SelfSubjectRulesReviewSpec", &[(1, "namespace", Text)]),
    ("RulesStatus", &[(3, "incomplete", Flag), (4, "evaluationError", Text)]),
    (
        "DeleteOptions",
        &[
            (1, "gracePeriodSeconds", SetNumber),
            (2, "preconditions", SetOf("Preconditions")),
            (3, "orphanDependents", SetFlag),
            (4, "propagationPolicy", Text),
            (5, "dryRun", Texts),
        ],
    ),
    ("Preconditions", &[(1, "uid", Text), (2, "resourceVersion", Text)]),
];

/// Reads a body into the JSON it stands for.
pub(crate) fn read(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::Malformed)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut envelope = Wire(envelope);
    while let Some((number, item)) = envelope.next()? {
        match (number, item) {
            (1, Item::Bytes(types)) => {
                let mut types = Wire(types);
                while let Some((number, item)) = types.next()? {
                    match number {
                        1 => api_version = item.text()?,
                        2 => kind = item.text()?,
                        _ => {}
                    }
                }
            }
            (2, Item::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (name, fields) =
        MESSAGES.iter().find(|(name, _)| *name == kind).ok_or_else(|| ProtobufError::Kind(kind.clone()))?;
    let mut object = message(raw, name, fields, 0)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(object.into())
}

fn fields_of(name: &'static str) -> Fields {
    MESSAGES.iter().find(|(known, _)| *known == name).map_or(&[], |(_, fields)| fields)
}

fn message(
    bytes: &[u8],
    name: &'static str,
    fields: Fields,
    depth: usize,
) -> Result<Map<String, Value>, ProtobufError> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::Malformed);
    }
    let mut object = Map::new();
    let mut wire = Wire(bytes);
    let nested = |item: Item<'_>, name: &'static str| message(item.bytes()?, name, fields_of(name), depth + 1);
    while let Some((number, item)) = wire.next()? {
        let Some((_, field, kind)) = fields.iter().find(|(known, ..)| *known == number) else {
            // `Empty` stands for what only the server writes: whatever is in it is not looked at.
            if item.is_empty() || name == "Empty" {
                continue;
            }
            return Err(ProtobufError::Field(name, number));
        };
        let append = |object: &mut Map<String, Value>, value: Value| {
            if let Value::Array(list) = object.entry(*field).or_insert_with(|| json!([])) {
                list.push(value);
            }
        };
        let value = match *kind {
            Text => Some(item.text()?).filter(|text| !text.is_empty()).map(Value::from),
            Number => Some(item.number()?).filter(|number| *number != 0).map(Value::from),
            SetNumber => Some(item.number()?.into()),
            Flag => Some(item.number()? != 0).filter(|flag| *flag).map(Value::from),
            SetFlag => Some((item.number()? != 0).into()),
            Of(name) => Some(nested(item, name)?).filter(|inner| !inner.is_empty()).map(Value::from),
            SetOf(name) => Some(nested(item, name)?.into()),
            Texts => {
                append(&mut object, item.text()?.into());
                None
            }
            Many(name) => {
                append(&mut object, nested(item, name)?.into());
                None
            }
            Labels | Blobs | Quantities => {
                let (key, value) = entry(item.bytes()?, *kind)?;
                if let Value::Object(map) = object.entry(*field).or_insert_with(|| json!({})) {
                    map.insert(key, value);
                }
                None
            }
            Either => Some(int_or_string(item.bytes()?)?),
        };
        if let Some(value) = value {
            object.insert((*field).to_owned(), value);
        }
    }
    Ok(object)
}

fn entry(bytes: &[u8], kind: Type) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut value) = (String::new(), Value::from(""));
    let mut wire = Wire(bytes);
    while let Some((number, item)) = wire.next()? {
        match (number, kind) {
            (1, _) => key = item.text()?,
            (2, Blobs) => value = super::strategy::base64(item.bytes()?).into(),
            (2, Quantities) => {
                let mut quantity = Wire(item.bytes()?);
                while let Some((number, item)) = quantity.next()? {
                    if number == 1 {
                        value = item.text()?.into();
                    }
                }
            }
            (2, _) => value = item.text()?.into(),
            _ => {}
        }
    }
    Ok((key, value))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut textual, mut number, mut text) = (false, 0, String::new());
    let mut wire = Wire(bytes);
    while let Some((field, item)) = wire.next()? {
        match field {
            1 => textual = item.number()? == 1,
            2 => number = item.number()?,
            3 => text = item.text()?,
            _ => {}
        }
    }
    Ok(if textual { text.into() } else { number.into() })
}

/// One value on the wire.
#[derive(Debug, Clone, Copy)]
enum Item<'b> {
    Varint(u64),
    Bytes(&'b [u8]),
}

impl<'b> Item<'b> {
    fn is_empty(self) -> bool {
        match self {
            Self::Varint(number) => number == 0,
            Self::Bytes(bytes) => bytes.is_empty(),
        }
    }

    fn bytes(self) -> Result<&'b [u8], ProtobufError> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(ProtobufError::Malformed) }
    }

    fn text(self) -> Result<String, ProtobufError> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| ProtobufError::Malformed)
    }

    fn number(self) -> Result<i64, ProtobufError> {
        // Negative numbers are written as 64-bit two's complement.
        if let Self::Varint(number) = self { Ok(number.cast_signed()) } else { Err(ProtobufError::Malformed) }
    }
}

/// The fields of one message, in order.
struct Wire<'b>(&'b [u8]);

impl<'b> Wire<'b> {
    fn next(&mut self) -> Result<Option<(u64, Item<'b>)>, ProtobufError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let item = match tag & 7 {
            0 => Item::Varint(self.varint()?),
            1 => Item::Bytes(self.take(8)?),
            2 => {
                let length = self.varint()?;
                Item::Bytes(self.take(usize::try_from(length).map_err(|_| ProtobufError::Malformed)?)?)
            }
            5 => Item::Bytes(self.take(4)?),
            _ => return Err(ProtobufError::Malformed),
        };
        Ok(Some((tag >> 3, item)))
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], ProtobufError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ProtobufError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(ProtobufError::Malformed)?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(ProtobufError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `kubectl create configmap a --from-literal=x=1` sends.
    const CONFIG_MAP: &[u8] =
        b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x1b\x0a\x11\x0a\x01a\x12\x00\x1a\x00\"\x00*\x002\x008\
        \x00B\x00\x12\x06\x0a\x01x\x12\x011\x1a\x00\"\x00";

    #[test]
    fn a_config_map_as_kubectl_sends_it() {
        let want =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": { "x": "1" } });
        assert_eq!(read(CONFIG_MAP).unwrap(), want);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert_eq!(read(b"{}"), Err(ProtobufError::Malformed));
        assert_eq!(read(&CONFIG_MAP[..30]), Err(ProtobufError::Malformed));
        let unknown = b"k8s\0\x0a\x07\x0a\x02v1\x12\x01X";
        assert_eq!(read(unknown), Err(ProtobufError::Kind("X".to_owned())));
        let field = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x03\xfa\x01\x00";
        assert!(read(field).is_ok(), "empty and unknown is nothing");
        let field = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x04\xfa\x01\x01x";
        assert_eq!(read(field), Err(ProtobufError::Field("ConfigMap", 31)));
    }

    #[test]
    fn every_message_named_is_listed() {
        for (_, fields) in MESSAGES {
            for (_, field, kind) in *fields {
                if let Of(name) | SetOf(name) | Many(name) = kind {
                    assert!(MESSAGES.iter().any(|(known, _)| known == name), "{field}: {name}");
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn junk_never_panics(tail in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut body = CONFIG_MAP.to_vec();
            body.truncate(23);
            body.extend(tail);
            let _ = read(&body);
        }
    }
}
