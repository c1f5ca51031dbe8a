//! Rotations of the user CA key: the rules against a model of hosts and certificates, and the service's steps.

mod model;
mod steps;
