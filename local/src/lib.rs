//! dormouse: everything in one command, with an embedded API server and node.
pub mod logs;
