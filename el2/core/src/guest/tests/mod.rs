//! Checks the policy for guests.
