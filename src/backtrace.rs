//! Leaves the box's programs without backtraces and unwinding, and so without what makes them.
//!
//! The box's programs have no tables for unwinding and no debug information: a panic says its message and its place, and aborts. Rust's
//! standard library is made for both cases. It brings a reader of DWARF, a decompressor and an unwinding library, together some 190 KB,
//! which only a backtrace and an unwinding panic use. It calls the unwinding library by the functions below. Here they say what is true of
//! these programs: the stack has no frame that can be walked, and no function has data for unwinding. What only serves a frame is then
//! unused code, and the optimisation of the whole program leaves it out.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr;

/// `_URC_END_OF_STACK` of the [Itanium C++ ABI](https://itanium-cxx-abi.github.io/cxx-abi/abi-eh.html#base-throw).
const END_OF_STACK: c_int = 5;

/// Walks no frame: the stack ends where it begins.
// SAFETY (this and the following ones): name and signature are those of the unwinding library's function, whose place it takes in the whole
// program. No argument is used. Nothing calls those that ask about a frame: `_Unwind_Backtrace` gives none, and a panic aborts.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_each_frame: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}

/// Gives a function's data for unwinding: there is none.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_GetLanguageSpecificData(_frame: *mut c_void) -> *mut c_void {
    ptr::null_mut()
}

/// Gives a frame's address: there is no frame.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_GetIPInfo(_frame: *mut c_void, _is_before: *mut c_int) -> usize {
    0
}

/// Gives where a frame's function begins: there is no frame.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_GetRegionStart(_frame: *mut c_void) -> usize {
    0
}

/// Sets a frame's register: there is no frame.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_SetGR(_frame: *mut c_void, _register: c_int, _value: usize) {}

/// Sets a frame's address: there is no frame.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_SetIP(_frame: *mut c_void, _address: usize) {}

/// Goes on with unwinding: nothing begins it.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume(_exception: *mut c_void) -> ! {
    std::process::abort()
}
