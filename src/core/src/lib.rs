//! karpenter-core: see ARCHITECTURE.md.
