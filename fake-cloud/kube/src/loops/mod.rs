//! The control-plane loops around the embedded API server: the scheduler and the controllers that a cluster's
//! behaviour comes from. Each is a documented model of the real component: it wakes on changes and on deadlines it
//! knows, and does nothing while nothing changes.

pub mod daemonset;
pub mod deployment;
pub mod events;
pub mod feed;
pub mod job;
pub mod object;
pub mod pods;
pub mod replicaset;
pub mod resource;
pub mod resources;
pub mod scheduler;
pub mod selector;
pub mod statefulset;
pub mod storage;
