//! `dormouse`: everything in one command, with no cluster at all.
//!
//! The same controller, autoscaler and activator that run on a cluster run here against an embedded
//! Kubernetes-style API server; a node runs each container of a pod as a process. In the order in which things start:
//!
//! - [`cli`]: the command line, as typed values.
//! - [`up`]: starts everything in order, stops everything in the opposite order; [`state_file`] says where it is.
//! - [`api_thread`], [`admission`], [`apiserver`]: stores the objects and serves the API to kubectl, to the controllers and to the node.
//! - [`system`], [`manifests`], [`kubeconfig`]: what is in the API from the start, what `-f` adds, how to reach it.
//! - [`cluster`]: Deployments to pods, Services to Endpoints: the two controllers of Kubernetes that we need.
//! - [`node`], [`keeper`], [`logs`]: pods as processes; nothing outlives `up`.
//! - [`observe`], [`board`], [`timeline`], [`screen`], [`console`]: what the user sees.
//! - [`hello`], [`demo`]: the built-in service and its deployment.
pub mod admission;
pub mod api_thread;
pub mod apiserver;
pub mod board;
pub mod cli;
pub mod cluster;
pub mod console;
pub mod crds;
pub mod demo;
pub mod hello;
pub mod keeper;
pub mod kubeconfig;
pub mod logs;
pub mod manifests;
pub mod node;
pub mod observe;
pub mod screen;
pub mod state_file;
pub mod system;
pub mod timeline;
pub mod up;
