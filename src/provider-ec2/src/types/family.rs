//! What AMI families differ in.

/// An AMI family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Amazon Linux 2.
    Al2,
    /// Amazon Linux 2023.
    Al2023,
    /// Bottlerocket.
    Bottlerocket,
    /// Windows Server 2019, 2022 or 2025.
    Windows,
    /// Whatever the user brings.
    Custom,
}

impl Family {
    /// By the name of `spec.amiFamily` or of an alias, in any case; unknown names are `Custom`.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        match name.to_lowercase().as_str() {
            "al2" => Self::Al2,
            "al2023" => Self::Al2023,
            "bottlerocket" => Self::Bottlerocket,
            "windows2019" | "windows2022" | "windows2025" => Self::Windows,
            _ => Self::Custom,
        }
    }

    /// Whether kubelet's reservation counts the pods that interfaces allow, rather than those it is told.
    pub(crate) fn reserves_for_eni_pods(self) -> bool {
        matches!(self, Self::Al2 | Self::Al2023 | Self::Custom)
    }
    /// Whether `podsPerCore` counts.
    pub(crate) fn supports_pods_per_core(self) -> bool {
        self != Self::Bottlerocket
    }
    /// Whether network interfaces limit the number of pods.
    pub(crate) fn limits_pods_by_eni(self) -> bool {
        self != Self::Windows
    }
    /// Device that pods' storage is on.
    pub(crate) fn ephemeral_device(self) -> Option<&'static str> {
        match self {
            Self::Al2 | Self::Al2023 => Some("/dev/xvda"),
            Self::Bottlerocket => Some("/dev/xvdb"),
            Self::Windows => Some("/dev/sda1"),
            Self::Custom => None,
        }
    }
    /// Volumes of machines whose class names none: device and size in GiB.
    pub(crate) fn default_volumes(self) -> &'static [(&'static str, i64)] {
        match self {
            Self::Al2 | Self::Al2023 => &[("/dev/xvda", 20)],
            Self::Bottlerocket => &[("/dev/xvda", 4), ("/dev/xvdb", 20)],
            Self::Windows => &[("/dev/sda1", 50)],
            Self::Custom => &[],
        }
    }
}
