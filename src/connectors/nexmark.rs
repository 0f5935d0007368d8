//! nexmark
