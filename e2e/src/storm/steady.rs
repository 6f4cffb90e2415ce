//! Whether disruption runs dry: with pods and prices fixed, every cluster comes to rest after finitely many moves, none of
//! which costs more than it saves, and no machine is replaced by what it had replaced.

use std::collections::BTreeMap;
use std::time::Duration;

use karpenter_api::budget::reason;
use karpenter_runtime::RngTree;

use super::cluster::{Cluster, Weather};
use super::operator::rescale;
use super::tell::{Telling, loaded};
use super::watch::{Move, Offering, Watch};
use crate::run::RunError;
use crate::scenario::Loaded;
use crate::scenario::schema::{ProviderName, Span, Step};
use crate::world::World;

/// How often the watch looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a cluster is left alone at most (s).
const LEFT_ALONE_SECONDS: f64 = 24.0 * 3600.0;
/// Time without a move after which there will be none: longer than any wait of the disruption loop (s).
const DRY_SECONDS: f64 = 3.0 * 3600.0;
/// Over what time a move has to pay for itself.
const HORIZON_HOURS: f64 = 24.0;
/// What pods lose while they move: their machine's price for so long (h).
const RESTART_HOURS: f64 = 1.0 / 60.0;
/// When the first, large size of the workloads gives way to the second, small one (s).
const RESCALED_AT: u64 = 600;

/// What came of leaving a cluster alone.
#[derive(Clone, Debug, Default)]
pub struct Rest {
    /// Moves that were made to save money, in words.
    pub moves: Vec<String>,
    /// What was wrong with them, or with the rest.
    pub broken: Vec<String>,
}

/// The random cluster of `seed`, first large, then small, then left alone.
///
/// # Errors
/// When it cannot be made.
pub async fn random(seed: u64) -> Result<Rest, RunError> {
    let tree = RngTree::new(seed);
    let provider = if seed % 2 == 1 {
        ProviderName::Ec2
    } else {
        ProviderName::Kwok
    };
    let cluster = Cluster::draw(&tree, provider, Weather::Calm);
    let at = |second, steps: Vec<Step>| {
        let steps = steps.into_iter();
        steps.map(move |s| Step {
            at: Some(Span::seconds(second)),
            ..s
        })
    };
    let large = at(1, rescale(&tree, &cluster, 0, 20));
    let small = at(RESCALED_AT, rescale(&tree, &cluster, 1, 6));
    story(&loaded(&cluster, seed, large.chain(small).collect()), seed).await
}

/// Tells a story to its end, and then leaves its cluster alone.
///
/// # Errors
/// When it cannot be told.
pub async fn story(loaded: &Loaded, seed: u64) -> Result<Rest, RunError> {
    let mut telling = Telling::begin(loaded, seed, LOOK_EVERY).await?;
    telling.take(&loaded.scenario.steps).await?;
    let rest = alone(&telling.world, &mut telling.watch).await;
    telling.world.end().await;
    Ok(rest)
}

async fn alone(world: &World, watch: &mut Watch) -> Rest {
    let began = world.elapsed();
    watch.broken.clear();
    let mut last = began;
    while world.elapsed() - last < DRY_SECONDS && world.elapsed() - began < LEFT_ALONE_SECONDS {
        world.clock.sleep(LOOK_EVERY).await;
        watch.look(world);
        last = watch.moves.last().map_or(began, |m| m.at.max(began));
    }
    let mut rest = Rest {
        moves: Vec::new(),
        broken: std::mem::take(&mut watch.broken),
    };
    if world.elapsed() - last < DRY_SECONDS {
        let what = "disruption does not run dry: there still are moves after a day";
        rest.broken.push(what.to_owned());
    }
    let for_money = |m: &&Move| m.announced.reason() == reason::UNDERUTILIZED;
    for made in watch
        .moves
        .iter()
        .filter(|m| m.at >= began)
        .filter(for_money)
    {
        rest.moves.push(made.announced.text.clone());
        rest.broken.extend(unpaid(made));
    }
    rest.broken.extend(returns(&watch.moves, began));
    rest
}

/// Why a move did not pay for itself, if it did not: what was paid twice while both ran, and what the pods lost.
fn unpaid(made: &Move) -> Option<String> {
    let bought = made.became.values().map(|(_, at)| *at).reduce(f64::min);
    let both_ran = match (bought, made.gone) {
        (Some(bought), Some(gone)) => (gone - bought).max(0.0) / 3600.0,
        _ => 0.0,
    };
    let cost = made.after * both_ran + made.before * RESTART_HOURS;
    let saved = (made.before - made.after) * HORIZON_HOURS;
    (saved < cost).then(|| {
        format!(
            "no move costs more than it saves: {} saved ${saved:.4} for ${cost:.4}",
            made.announced.text
        )
    })
}

/// Machines that were replaced by what they had replaced themselves, after second `began`.
fn returns(moves: &[Move], began: f64) -> Vec<String> {
    let mut forebears: BTreeMap<&str, Vec<&Offering>> = BTreeMap::new();
    let mut out = Vec::new();
    for made in moves.iter().filter(|m| m.at >= began) {
        let inherited = made.announced.candidates.iter();
        let mut before: Vec<&Offering> = inherited
            .filter_map(|c| forebears.get(&**c))
            .flatten()
            .copied()
            .collect();
        for (offering, _) in made.became.values() {
            if before.contains(&offering) {
                let (instance_type, zone, capacity_type) = offering;
                out.push(format!(
                    "never there and back: {} ended in {instance_type} {capacity_type} in {zone} again",
                    made.announced.text
                ));
            }
        }
        before.extend(&made.was);
        for claim in made.became.keys() {
            forebears.insert(claim, before.clone());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::listen::Announced;
    use super::*;

    fn offering(name: &str) -> Offering {
        (name.to_owned(), "z".to_owned(), "spot".to_owned())
    }

    fn made(at: f64, from: (&str, &str), to: (&str, &str)) -> Move {
        Move {
            at,
            announced: Announced {
                text: "Underutilized/1".to_owned(),
                candidates: vec![from.0.to_owned()],
                replacements: vec![to.0.to_owned()],
            },
            was: vec![offering(from.1)],
            before: 1.0,
            became: [(to.0.to_owned(), (offering(to.1), at))].into(),
            after: 0.5,
            gone: Some(at + 600.0),
        }
    }

    #[test]
    fn a_way_back_is_found_however_long_it_takes() {
        let there = made(1.0, ("c1", "A"), ("c2", "B"));
        let on = made(2.0, ("c2", "B"), ("c3", "C"));
        let back = made(3.0, ("c3", "C"), ("c4", "A"));
        let other = made(3.0, ("c9", "C"), ("c8", "A"));
        assert!(returns(&[there.clone(), on.clone(), other], 0.0).is_empty());
        assert_eq!(
            returns(&[there.clone(), on.clone(), back.clone()], 0.0).len(),
            1
        );
        assert!(
            returns(&[there, on, back], 1.5).is_empty(),
            "what was before the peace does not count"
        );
    }

    #[test]
    fn a_move_is_weighed_with_what_it_costs() {
        let mut cheap = made(0.0, ("a", "A"), ("b", "B"));
        assert_eq!(unpaid(&cheap), None);
        (cheap.before, cheap.after) = (1.0, 0.9999);
        assert!(unpaid(&cheap).is_some());
    }
}
