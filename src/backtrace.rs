//! Removes backtraces and unwinding, and the code for them, from the box's programs.
//!
//! The box's programs have no unwinding tables and no debug information: a panic prints its message and its place, and aborts.
//! Rust's standard library also supports backtraces and unwinding. For these it contains a DWARF reader, a decompressor and an
//! unwinding library, together some 190 KB. It calls the unwinding library through the functions below. This module defines them
//! so that they match these programs: the stack has no frame to walk, and no function has unwinding data. The code that handles
//! frames is then unused, and link-time optimisation removes it.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr;

/// `_URC_END_OF_STACK` of the [Itanium C++ ABI](https://itanium-cxx-abi.github.io/cxx-abi/abi-eh.html#base-throw).
const END_OF_STACK: c_int = 5;

/// Walks no frame: the stack is already at its end.
// SAFETY (this and the following ones): name and signature are those of the function in the unwinding library, which it replaces
// in the whole program. No argument is used. Nothing calls the functions that ask about a frame: `_Unwind_Backtrace` provides
// none, and a panic aborts.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_each_frame: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}

/// Returns a function's unwinding data: there is none.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_GetLanguageSpecificData(_frame: *mut c_void) -> *mut c_void {
    ptr::null_mut()
}

/// Returns a frame's address: there is no frame.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_GetIPInfo(_frame: *mut c_void, _is_before: *mut c_int) -> usize {
    0
}

/// Returns the start of a frame's function: there is no frame.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_GetRegionStart(_frame: *mut c_void) -> usize {
    0
}

/// Sets a register of a frame: there is no frame.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_SetGR(_frame: *mut c_void, _register: c_int, _value: usize) {}

/// Sets a frame's address: there is no frame.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_SetIP(_frame: *mut c_void, _address: usize) {}

/// Continues unwinding: it never begins.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume(_exception: *mut c_void) -> ! {
    std::process::abort()
}
