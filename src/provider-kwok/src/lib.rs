//! karpenter-provider-kwok: see ARCHITECTURE.md.
