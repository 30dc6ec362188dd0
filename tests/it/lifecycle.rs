//! Starts, outages, rotations, drains, and what the audit log says of all of it (PRODUCT 5.2, 7, 8).

mod audit;
mod drain;
mod issuer;
mod load;
mod operators;
mod shipping;
mod start;
