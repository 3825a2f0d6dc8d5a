//! The arrows between our crates point one way: local → the four processes → proxy → api. Read from `cargo metadata`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what a test cannot do without has failed it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

/// What each crate may depend on, of ours. `benches` stands outside.
const ALLOWED: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("lease", &["api"]),
    ("proxy", &["api"]),
    ("telemetry", &["api", "proxy"]),
    ("queue-proxy", &["api", "proxy", "telemetry"]),
    ("activator", &["api", "proxy", "telemetry"]),
    ("autoscaler", &["api", "lease", "proxy"]),
    ("control", &["api", "lease", "proxy"]),
    ("local", &["api", "proxy", "queue-proxy", "activator", "autoscaler", "control"]),
    ("benches", &["api", "proxy", "activator"]),
];

#[test]
fn crates_depend_only_downwards() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeSet<&str> = packages.iter().map(|p| p["name"].as_str().unwrap()).collect();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    assert_eq!(names, allowed.keys().copied().collect(), "a crate was added: say here what it may depend on");
    for package in packages {
        let name = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            assert!(!names.contains(on) || allowed[name].contains(&on), "{name} must not depend on {on}");
        }
    }
}
