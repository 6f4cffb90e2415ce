//! What is written, what is dropped, and what the object looks like.

use super::*;
