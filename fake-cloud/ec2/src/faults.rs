//! Faults of the cloud, as a harness injects them: pools without capacity, calls that are throttled, refused or
//! answered into the void.

use jiff::Timestamp;
use karpenter_ec2_api::{Ec2Error, FleetTarget};

use crate::prices::PoolMatch;

/// What goes wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallFaultKind {
    /// `RequestLimitExceeded`.
    Throttle,
    /// An error of the caller's choice; nothing happens.
    Error {
        /// AWS code.
        code: String,
        /// Text.
        message: String,
    },
    /// The action happens, and the caller hears nothing.
    LostResponse,
}

/// A fault of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFault {
    /// Name of the call, such as `CreateFleet`; `*` = every call.
    pub call: String,
    /// What goes wrong.
    pub kind: CallFaultKind,
    /// How often; none = as long as `until` allows.
    pub times: Option<u32>,
    /// Until when (exclusive); none = as often as `times` allows.
    pub until: Option<Timestamp>,
}

/// How much of a pool can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolLimit {
    /// Nothing, whatever is in use.
    Out,
    /// So many machines in all, per pool; what terminates comes back.
    Total(u32),
}

/// A limit on pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRule {
    /// Which pools.
    pub pools: PoolMatch,
    /// How much of each.
    pub limit: PoolLimit,
    /// Until when (exclusive); none = until replaced or cleared.
    pub until: Option<Timestamp>,
    /// Fleet error code, such as `InsufficientInstanceCapacity`.
    pub code: String,
}

/// What a call has to do about faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Proceed,
    ProceedButLoseResponse,
}

/// All faults that are on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    calls: Vec<CallFault>,
    pools: Vec<PoolRule>,
}

impl Faults {
    pub(crate) fn add_call(&mut self, fault: CallFault) {
        self.calls.push(fault);
    }

    /// A later rule wins over an earlier one for the pools it matches.
    pub(crate) fn add_pool(&mut self, rule: PoolRule) {
        self.pools.retain(|r| r.pools != rule.pools);
        self.pools.push(rule);
    }

    /// Lifts the rule of exactly these pools; those that mean any pool lift all.
    pub(crate) fn lift(&mut self, pools: &PoolMatch) {
        self.pools
            .retain(|r| r.pools != *pools && *pools != PoolMatch::default());
    }

    pub(crate) fn clear(&mut self) {
        self.calls.clear();
        self.pools.clear();
    }

    /// Takes the first fault that hits `call`.
    pub(crate) fn on_call(&mut self, call: &str, now: Timestamp) -> Result<Verdict, Ec2Error> {
        self.calls
            .retain(|f| f.times != Some(0) && f.until.is_none_or(|until| now < until));
        let Some(fault) = self
            .calls
            .iter_mut()
            .find(|f| f.call == "*" || f.call == call)
        else {
            return Ok(Verdict::Proceed);
        };
        if let Some(times) = &mut fault.times {
            *times -= 1;
        }
        match &fault.kind {
            CallFaultKind::Throttle => Err(Ec2Error::server(
                "RequestLimitExceeded",
                format!("too many {call} requests"),
            )),
            CallFaultKind::Error { code, message } => Err(Ec2Error::new(code, message.clone())),
            CallFaultKind::LostResponse => Ok(Verdict::ProceedButLoseResponse),
        }
    }

    /// The rule for a pool, if any.
    pub(crate) fn pool(
        &self,
        instance_type: &str,
        zone: &str,
        capacity_type: FleetTarget,
        now: Timestamp,
    ) -> Option<&PoolRule> {
        self.pools.iter().rev().find(|r| {
            r.until.is_none_or(|until| now < until)
                && r.pools.matches(instance_type, zone, capacity_type)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_counted_fault_ends_and_a_timed_one_too() {
        let mut faults = Faults::default();
        faults.add_call(CallFault {
            call: "CreateFleet".into(),
            kind: CallFaultKind::Throttle,
            times: Some(2),
            until: None,
        });
        faults.add_call(CallFault {
            call: "*".into(),
            kind: CallFaultKind::LostResponse,
            times: None,
            until: Some(at(10)),
        });
        for _ in 0..2 {
            let error = faults.on_call("CreateFleet", at(0)).unwrap_err();
            assert_eq!(error.code, "RequestLimitExceeded");
        }
        assert_eq!(
            faults.on_call("CreateFleet", at(9)),
            Ok(Verdict::ProceedButLoseResponse)
        );
        assert_eq!(faults.on_call("CreateFleet", at(10)), Ok(Verdict::Proceed));
    }

    #[test]
    fn the_latest_pool_rule_wins_until_it_ends() {
        let rule = |pools: PoolMatch, limit, until| PoolRule {
            pools,
            limit,
            until,
            code: "InsufficientInstanceCapacity".into(),
        };
        let mut faults = Faults::default();
        faults.add_pool(rule(PoolMatch::default(), PoolLimit::Total(3), None));
        let m5 = PoolMatch {
            instance_type: Some("m5.*".into()),
            ..PoolMatch::default()
        };
        faults.add_pool(rule(m5, PoolLimit::Out, Some(at(5))));
        let limit = |name, now| {
            faults
                .pool(name, "z", FleetTarget::Spot, at(now))
                .map(|r| r.limit)
        };
        assert_eq!(limit("m5.large", 4), Some(PoolLimit::Out));
        assert_eq!(limit("m5.large", 5), Some(PoolLimit::Total(3)));
        assert_eq!(limit("c5.large", 4), Some(PoolLimit::Total(3)));
    }
}
