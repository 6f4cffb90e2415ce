//! What an instance does after launch: reads its user data, boots, joins the cluster as a Node, keeps it alive,
//! runs the pods bound to it, and dies. Works on any source of instances and any cluster.

pub mod cluster;
pub mod faults;
pub mod hosts;
mod images;
pub mod instance;
pub mod kubelet;
pub mod kwok;
pub mod machines;
mod node;
pub mod options;
pub mod outages;
mod podrun;
mod probes;
pub mod userdata;

pub use cluster::Cluster;
pub use faults::{Fault, MachineView, MachinesHandle, Selector, Stage};
pub use instance::{Instance, InstanceEvent};
pub use kwok::Kwok;
pub use machines::Machines;
pub use options::{KubeletOptions, KwokOptions, MachineOptions, Span};
pub use outages::{Outages, Programs};
