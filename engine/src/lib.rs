//! An io_uring storage I/O engine built on the Proactor pattern.
