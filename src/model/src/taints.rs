//! Taints and tolerations (`scheduling.md` §2): Kubernetes' semantics, all effects, `Gt`/`Lt` included.

pub use k8s_openapi::api::core::v1::{Taint, Toleration};
