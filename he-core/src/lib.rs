//! Leveled RNS-CKKS on 32-bit words.
#![cfg_attr(not(test), no_std)]
