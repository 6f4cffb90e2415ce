//! karpenter-fake-ec2: see ARCHITECTURE.md.
