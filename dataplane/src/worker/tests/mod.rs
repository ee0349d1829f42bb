//! Promises of a worker, held by real frames on memory. Every batch is counted: see `World::batch`.

mod adoption;
mod bounds;
mod connections;
mod departures;
mod fates;
mod fragments;
mod frames;
mod icmp;
mod mid_flow;
mod moves;
mod node;
mod openings;
mod restart;
mod rules;
mod simulation;
mod translated;
mod world;
