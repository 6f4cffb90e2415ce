//! What can go wrong with machines, by name: said through a handle, taken in by the machines' loop.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::instance::Instance;
use crate::outages::Programs;

/// Which machines are meant; every part that is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Instance id.
    pub id: Option<String>,
    /// Node name.
    pub node: Option<String>,
    /// Instance type.
    pub instance_type: Option<String>,
    /// Zone.
    pub zone: Option<String>,
    /// At most this many machines, in order of launch; none for all of them, now and later.
    pub count: Option<u32>,
}

impl Selector {
    /// Every machine, now and later.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The machine of one node.
    #[must_use]
    pub fn node(name: &str) -> Self {
        Self {
            node: Some(name.to_owned()),
            ..Self::default()
        }
    }

    pub(crate) fn fits(&self, instance: &Instance) -> bool {
        let equal = |want: &Option<String>, have: &str| want.as_ref().is_none_or(|w| w == have);
        equal(&self.id, &instance.id)
            && equal(&self.node, &instance.private_dns_name)
            && equal(&self.instance_type, &instance.instance_type)
            && equal(&self.zone, &instance.zone)
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Machines that have not booted yet never do.
    NeverBoots,
    /// Machines that have not booted yet take this much longer.
    BootsLate(Duration),
    /// The kubelet reports that it is not ready, and does nothing; machines that run now only.
    NotReady,
    /// The machine stops without a word; machines that run now only.
    Dies,
}

pub(crate) enum Command {
    Fault(Selector, Fault),
    Heal(Selector),
}

/// Where a machine is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Launched, not in the cluster yet.
    Booting,
    /// It will never be in the cluster.
    Stuck,
    /// Its Node is there, not ready yet.
    Joined,
    /// Ready.
    Ready,
    /// It reports not ready.
    NotReady,
    /// It says nothing any more.
    Silent,
    /// It was told to go.
    Terminating,
}

/// What can be seen of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineView {
    /// Instance id.
    pub id: String,
    /// Node name.
    pub node: String,
    /// Where it is in its life.
    pub stage: Stage,
    /// Why it is stuck, in words.
    pub problem: Option<String>,
}

/// Handle on running machines; cheap to clone.
#[derive(Clone, Debug)]
pub struct MachinesHandle {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) views: Arc<Mutex<Vec<MachineView>>>,
    pub(crate) programs: Programs,
}

impl MachinesHandle {
    /// Makes `fault` happen to the machines of `selector`. Faults of booting stay in force for machines that are
    /// launched later, until `selector.count` of them were hit or [`Self::heal`] ends them.
    pub fn fault(&self, selector: Selector, fault: Fault) {
        // The loop is gone only when the world is.
        let _ = self.commands.send(Command::Fault(selector, fault));
    }

    /// Ends faults: machines that report not ready or fell silent come back, and faults of booting that were made
    /// with this very selector are lifted; machines that they hit stay stuck.
    pub fn heal(&self, selector: Selector) {
        let _ = self.commands.send(Command::Heal(selector));
    }

    /// The programs that run on machines.
    #[must_use]
    pub const fn programs(&self) -> &Programs {
        &self.programs
    }

    /// All machines that are not terminated, in order of launch.
    #[must_use]
    pub fn machines(&self) -> Vec<MachineView> {
        self.views.lock().clone()
    }
}
