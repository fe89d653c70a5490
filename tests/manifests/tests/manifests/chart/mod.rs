//! `charts/kerf`: it renders what the kustomizations do, its values reach the objects, and wrong ones are refused by name.

mod names;
mod readme;
mod refusals;
mod render;
mod same;
mod values;
