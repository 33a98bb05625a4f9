/*!
The program from the outside: what it prints, what it writes, how it exits.
*/

mod diff;
mod fail_closed;
mod golden;
mod program;
mod spec_keys;
