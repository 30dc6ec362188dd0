//! What test files can say, and what is told of mistakes in them.
