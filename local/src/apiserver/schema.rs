//! What an object of a kind looks like: a compact tree made from OpenAPI v3, shared by validation, pruning,
//! defaulting and apply.
//!
//! Built-in kinds come from `k8s-openapi`'s generated schemas (with `$ref`s between named types), CRDs bring their
//! own. Descriptions are dropped here; [`super::openapi`] shows the originals.
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use serde_json::Value;

/// How deep a schema may nest (CRDs come from users).
const MAX_DEPTH: usize = 64;

/// The type of a value.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// Fields by name; others by `additional`, or unknown.
    Object {
        /// The declared fields.
        properties: BTreeMap<Box<str>, Schema>,
        /// Schema of all other fields (a map).
        additional: Option<Box<Schema>>,
        /// Whether fields that are not declared are kept.
        open: bool,
    },
    /// A list.
    Array(Box<Schema>),
    /// `string`.
    String,
    /// `integer`.
    Integer,
    /// `number`.
    Number,
    /// `boolean`.
    Boolean,
    /// A number or a string.
    IntOrString,
    /// Anything.
    Any,
    /// A named type, filled in once all are known.
    Named(Arc<OnceLock<Schema>>),
}

/// How a list merges on apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum ListType {
    /// Replaced as a whole.
    #[default]
    Atomic,
    /// Items are their own identity.
    Set,
    /// Items are identified by these fields.
    Map(Vec<String>),
    /// As [`super::patch::merge_keys`] says, by the field's name and the items' type.
    Builtin,
}

/// One node of the tree.
#[derive(Debug, Clone)]
pub(crate) struct Schema {
    /// Type.
    pub(crate) shape: Shape,
    /// Whether `null` is a value.
    pub(crate) nullable: bool,
    /// Fields that must be there.
    pub(crate) required: Box<[Box<str>]>,
    /// Allowed values.
    pub(crate) allowed: Box<[Value]>,
    /// Value of an absent field.
    pub(crate) default: Option<Box<Value>>,
    /// Lowest number.
    pub(crate) minimum: Option<f64>,
    /// Highest number.
    pub(crate) maximum: Option<f64>,
    /// Shortest and longest string or list.
    pub(crate) length: (Option<u64>, Option<u64>),
    /// How a list merges.
    pub(crate) list: ListType,
    /// The map is one value on apply.
    pub(crate) atomic: bool,
    /// `x-kubernetes-embedded-resource`: has apiVersion, kind and metadata without declaring them.
    pub(crate) embedded: bool,
}

impl Schema {
    /// Accepts everything.
    pub(crate) fn anything() -> Self {
        Self::of(Shape::Any)
    }

    fn of(shape: Shape) -> Self {
        Self {
            shape,
            nullable: false,
            required: Box::default(),
            allowed: Box::default(),
            default: None,
            minimum: None,
            maximum: None,
            length: (None, None),
            list: ListType::Atomic,
            atomic: false,
            embedded: false,
        }
    }

    /// This node, or the named type it stands for.
    pub(crate) fn resolved(&self) -> &Self {
        let mut at = self;
        while let Shape::Named(cell) = &at.shape {
            match cell.get() {
                Some(schema) => at = schema,
                None => break,
            }
        }
        at
    }

    /// Schema of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        match &self.resolved().shape {
            Shape::Object { properties, additional, .. } => properties.get(name).or(additional.as_deref()),
            _ => None,
        }
    }

    /// Schema of a list's items.
    pub(crate) fn items(&self) -> Option<&Self> {
        match &self.resolved().shape {
            Shape::Array(items) => Some(items),
            _ => None,
        }
    }

    /// Reads the `openAPIV3Schema` of a CRD.
    pub(crate) fn of_crd(schema: &Value) -> Self {
        let mut built = Reader { named: &HashMap::new(), builtin: false }.read(schema, 0);
        if let Shape::Object { properties, .. } = &mut built.shape {
            // Every object has these three, declared or not; metadata's own shape is not the CRD's to say.
            properties.insert("apiVersion".into(), Self::of(Shape::String));
            properties.insert("kind".into(), Self::of(Shape::String));
            properties.insert("metadata".into(), metadata());
        }
        built
    }

    /// Reads named types that refer to each other.
    pub(crate) fn of_definitions(definitions: &serde_json::Map<String, Value>) -> HashMap<String, Self> {
        let named: HashMap<String, Arc<OnceLock<Self>>> =
            definitions.keys().map(|name| (name.clone(), Arc::new(OnceLock::new()))).collect();
        let reader = Reader { named: &named, builtin: true };
        for (name, schema) in definitions {
            if let Some(cell) = named.get(name) {
                let _ = cell.set(reader.read(schema, 0));
            }
        }
        named.into_iter().map(|(name, cell)| (name, Self::of(Shape::Named(cell)))).collect()
    }
}

/// `metadata`: the built-in ObjectMeta.
fn metadata() -> Schema {
    super::builtin::schemas()
        .get("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
        .cloned()
        .unwrap_or_else(Schema::anything)
}

struct Reader<'a> {
    named: &'a HashMap<String, Arc<OnceLock<Schema>>>,
    builtin: bool,
}

impl Reader<'_> {
    fn read(&self, schema: &Value, depth: usize) -> Schema {
        if depth > MAX_DEPTH {
            return Schema::anything();
        }
        let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
        if let Some(name) = reference.and_then(|reference| reference.rsplit('/').next()) {
            return self.named.get(name).map_or_else(Schema::anything, |cell| Schema::of(Shape::Named(cell.clone())));
        }
        let flag = |key: &str| schema[key].as_bool().unwrap_or(false);
        let open = flag("x-kubernetes-preserve-unknown-fields");
        let shape = if flag("x-kubernetes-int-or-string") {
            Shape::IntOrString
        } else {
            match schema["type"].as_str() {
                // Built-in objects that declare nothing hold anything (`FieldsV1`, `JSON`, `RawExtension`).
                Some("object") if self.builtin && declares_nothing(schema) => Shape::Any,
                Some("object") => self.object(schema, open, depth),
                Some("array") => Shape::Array(Box::new(self.read(&schema["items"], depth + 1))),
                Some("string") => Shape::String,
                Some("integer") => Shape::Integer,
                Some("number") => Shape::Number,
                Some("boolean") => Shape::Boolean,
                _ if schema["properties"].is_object() => self.object(schema, open, depth),
                _ => Shape::Any,
            }
        };
        let mut built = Schema::of(shape);
        built.nullable = flag("nullable");
        // Built-in kinds have hand-written checks in the real server; what its OpenAPI calls required is often
        // filled in by defaults.
        if !self.builtin {
            built.required = schema["required"]
                .as_array()
                .map(|names| names.iter().filter_map(Value::as_str).map(Into::into).collect())
                .unwrap_or_default();
            built.allowed = schema["enum"].as_array().map(|all| all.clone().into()).unwrap_or_default();
            built.minimum = schema["minimum"].as_f64();
            built.maximum = schema["maximum"].as_f64();
            let bound = |a: &str, b: &str| schema[a].as_u64().or_else(|| schema[b].as_u64());
            built.length = (bound("minLength", "minItems"), bound("maxLength", "maxItems"));
            built.default = schema.get("default").map(|value| Box::new(value.clone()));
        }
        built.list = match schema["x-kubernetes-list-type"].as_str() {
            Some("map") => ListType::Map(
                schema["x-kubernetes-list-map-keys"]
                    .as_array()
                    .map(|keys| keys.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                    .unwrap_or_default(),
            ),
            Some("set") => ListType::Set,
            _ => ListType::Atomic,
        };
        built.atomic = schema["x-kubernetes-map-type"] == "atomic";
        built.embedded = flag("x-kubernetes-embedded-resource");
        built
    }

    fn object(&self, schema: &Value, open: bool, depth: usize) -> Shape {
        let mut properties = BTreeMap::new();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let mut read = self.read(property, depth + 1);
            if self.builtin {
                super::patch::merge_keys::annotate(name, &mut read);
            }
            properties.insert(name.as_str().into(), read);
        }
        let additional = match &schema["additionalProperties"] {
            Value::Null | Value::Bool(false) => None,
            Value::Bool(true) => Some(Box::new(Schema::anything())),
            other => Some(Box::new(self.read(other, depth + 1))),
        };
        Shape::Object { properties, additional, open }
    }
}

fn declares_nothing(schema: &Value) -> bool {
    !schema["properties"].is_object() && matches!(schema["additionalProperties"], Value::Null | Value::Bool(_))
}
