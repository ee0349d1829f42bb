//! A lab for one test.

use super::leftovers::leftovers;
use super::turn::Turn;
use sluice_lab::{Agent, Lab, LabConfig, log_tail};
use std::ops::Deref;
use std::time::{Duration, Instant};

/// A lab that is up. Dropped, it is taken down; [`Live::down`] also proves that nothing is left.
pub struct Live {
    lab: Option<Lab>,
    name: String,
    turn: Turn,
    began: Instant,
}

/// A name that no other test program uses at the same time.
pub fn lab_name(stem: &str) -> String {
    format!("{stem}{}", std::process::id())
}

impl Live {
    /// Brings up two workers and the objects of `yaml`; `change` may ask for something else.
    ///
    /// # Panics
    /// When the lab does not come up.
    pub fn up(turn: Turn, stem: &str, yaml: &str, change: impl FnOnce(&mut LabConfig)) -> Self {
        let name = lab_name(stem);
        let mut config = LabConfig::new(&name);
        config.yaml = yaml.into();
        change(&mut config);
        let began = Instant::now();
        let lab = Lab::up(&config).unwrap_or_else(|error| panic!("lab {name} does not come up: {error:#}"));
        println!("{}: lab {name} is up after {:.1} s", turn.test, began.elapsed().as_secs_f64());
        Self { lab: Some(lab), name, turn, began }
    }

    /// Takes the lab down.
    ///
    /// # Panics
    /// When something of it is left.
    pub fn down(mut self) {
        self.remove();
        println!("{}: passed in {:.1} s, nothing is left", self.turn.test, self.began.elapsed().as_secs_f64());
    }

    fn remove(&mut self) {
        let Some(lab) = self.lab.take() else { return };
        lab.down().unwrap_or_else(|error| panic!("lab {} does not go down: {error:#}", self.name));
        assert_nothing_left(&self.name);
    }
}

/// Asserts that a lab is wholly gone; a killed process may need a moment.
///
/// # Panics
/// When something is left, with what it is.
pub fn assert_nothing_left(name: &str) {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let left = leftovers(name);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left behind by lab {name}:\n{}", left.join("\n"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Deref for Live {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        self.lab.as_ref().expect("only `down` and `drop` take it")
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let (true, Some(lab)) = (std::thread::panicking(), &self.lab) {
            let nodes = lab.state().map(|state| state.nodes).unwrap_or_default();
            for (node, agent) in nodes.keys().flat_map(|node| Agent::ALL.map(|agent| (node, agent))) {
                println!("== {} on {node}: last words\n{}", agent.program(), log_tail(&agent.log(&lab.at(node)), 25));
            }
            return;
        }
        self.remove();
    }
}
