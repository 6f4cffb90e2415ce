//! karpenter-provider-ec2: see ARCHITECTURE.md.
