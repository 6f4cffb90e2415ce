//! karpenter-e2e: see ARCHITECTURE.md.
