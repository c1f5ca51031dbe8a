//! The service is killed at random moments under load, again and again; `HALLPASS_KILLS=2000` for a long run.

use std::time::Duration;

use super::checker::Checker;
use super::load::Load;
use super::server::Site;

/// A number from the environment, for a longer run than usual.
pub(super) fn variable(name: &str, usual: u32) -> u32 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().expect("a number"))
}

/// Random numbers that are the same for the same seed (`SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_service_killed_at_random_moments_under_load_loses_doubles_and_hides_nothing() {
    let (kills, mut random) = (variable("HALLPASS_KILLS", 6), Random(variable("HALLPASS_SEED", 1).into()));
    let site = Site::new();
    let mut server = site.start(None);
    let load = Load::start(&server).await;
    load.works(8).await;
    let (mut kept, mut slowest) = (Vec::new(), Duration::ZERO);
    for n in 0..kills {
        // Some at once, while a start is still warm; the others somewhere in the next third of a second.
        let wait = random.below(4).min(1) * random.below(330_000);
        tokio::time::sleep(Duration::from_micros(wait)).await;
        server.kill();
        if n % (1 + kills / 50) == 0 {
            kept.extend(site.kept());
        }
        server = site.start(None);
        load.call(&server).await;
        if random.below(4) > 0 {
            slowest = slowest.max(load.works(1).await);
        }
    }
    let (connection, facts) = load.finish().await;
    let checker = Checker::read(&connection, kept).await;
    server.kill();
    let shown = checker.check(&facts, Some(&site.path("hallpass.db")));
    println!("{kills} kills; slowest first certificate after a start {} ms; {shown}", slowest.as_millis());
}
