//! The front door's side: who is let in, what the agent is told, how it streams, and what is refused (PRODUCT 5).

mod agent_away;
mod framing;
mod identity;
mod modes;
mod sessions;
mod streams;
mod tokens;
mod websocket;
