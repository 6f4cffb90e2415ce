//! What an instance does after launch: reads its user data, boots, joins the cluster as a Node, keeps it alive,
//! runs the pods bound to it, and dies. Works on any source of instances and any cluster.

pub mod instance;

pub use instance::{Instance, InstanceEvent};
