//! The narrow EC2: the calls Karpenter makes, in types of our own. `karpenter-provider-ec2` speaks only this;
//! `fake-cloud/ec2` answers it in memory; an adapter on the AWS SDK will answer it for real.
//! A crate of its own so that the fake cloud does not depend on the provider it is faking for.
