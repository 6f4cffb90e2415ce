//! With pods and prices fixed, disruption runs dry, in every story of the fixtures and in random clusters: see
//! `karpenter_e2e::storm::steady`. Minutes of computing, so only when asked for: `just test-tiers --test steady --
//! --ignored`.

use std::path::{Path, PathBuf};

use karpenter_e2e::run::RunError;
use karpenter_e2e::storm::steady::{Rest, random, story};
use karpenter_e2e::{scenario, world};
use libtest_mimic::{Arguments, Failed, Trial};

/// Random clusters, and how many of them make a test.
const SEEDS: u64 = 200;
const SEEDS_A_TEST: u64 = 10;

fn main() {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/scenarios");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&root)
        .map(|all| all.filter_map(Result::ok).map(|e| e.path()).collect())
        .unwrap_or_default();
    folders.retain(|f| f.is_dir());
    folders.sort();
    let fixtures = folders.into_iter().map(|folder| {
        let name = folder.file_name().map(|n| n.to_string_lossy().into_owned());
        Trial::test(name.unwrap_or_default(), move || fixture(&folder))
    });
    let first = (1..=SEEDS).step_by(usize::try_from(SEEDS_A_TEST).unwrap_or(1));
    let seeds = first.map(|from| {
        let name = format!("random clusters {from} to {}", from + SEEDS_A_TEST - 1);
        Trial::test(name, move || randoms(from))
    });
    let all = fixtures.chain(seeds).map(|t| t.with_ignored_flag(true));
    libtest_mimic::run(&arguments, all.collect()).exit();
}

fn fixture(folder: &Path) -> Result<(), Failed> {
    let loaded = scenario::load(folder).map_err(|e| e.to_string())?;
    judge(virtually(story(&loaded, loaded.scenario.seed))?)
}

fn randoms(from: u64) -> Result<(), Failed> {
    let mut moves = 0;
    for seed in from..from + SEEDS_A_TEST {
        let rest = virtually(random(seed))?;
        moves += rest.moves.len();
        judge(rest).map_err(|e| format!("seed {seed}: {}", e.message().unwrap_or_default()))?;
    }
    if moves == 0 {
        return Err("ten clusters and not one move: the property says nothing".into());
    }
    Ok(())
}

fn judge(rest: Rest) -> Result<(), Failed> {
    if rest.broken.is_empty() {
        return Ok(());
    }
    let broken = rest.broken.join("\n");
    let moves = rest.moves.join("\n  ");
    Err(format!("{broken}\nafter the moves\n  {moves}").into())
}

fn virtually(told: impl Future<Output = Result<Rest, RunError>>) -> Result<Rest, Failed> {
    let runtime = world::virtual_runtime().map_err(|e| e.to_string())?;
    Ok(runtime.block_on(told).map_err(|e| e.to_string())?)
}
