// Version of these headers, and of the artefacts that they read.
#ifndef GSB_TVM_VERSION_HPP_
#define GSB_TVM_VERSION_HPP_

#define GSB_TVM_VERSION "0.1.0"

/* Format of artefacts: gsb_tvm/runtime/metadata.py. */
#define GSB_TVM_ARTEFACT_FORMAT 4

#endif  // GSB_TVM_VERSION_HPP_
