# find_package(gsb_tvm) defines the target gsb_tvm::runtime: headers, threads, the dynamic loader.
#
# There is no code for one machine in it, so it serves any toolchain file. Where that lets packages
# be found only below a sysroot, -Dgsb_tvm_DIR="$(gsb-tvm paths --cmake)" still finds this one.
include(CMakeFindDependencyMacro)
set(THREADS_PREFER_PTHREAD_FLAG TRUE)
find_dependency(Threads)
if(NOT TARGET gsb_tvm::runtime)
  get_filename_component(_gsb_tvm_include "${CMAKE_CURRENT_LIST_DIR}/../include" ABSOLUTE)
  add_library(gsb_tvm::runtime INTERFACE IMPORTED)
  set_target_properties(gsb_tvm::runtime PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${_gsb_tvm_include}"
    INTERFACE_COMPILE_FEATURES cxx_std_17
    INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS}")
  unset(_gsb_tvm_include)
endif()
