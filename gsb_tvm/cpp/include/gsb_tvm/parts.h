/* Threads that share the work of one call, kept from call to call.
 *
 * A compiled model does its work in parts: each of n threads calls the same function with a part of
 * its own, and they wait for each other inside it. So all parts must run at the same time, which is
 * why there is a pool of n - 1 threads beside the caller's and no queue.
 *
 * Valid C11 and C++17; needs POSIX threads and the __atomic operations of gcc and clang.
 */
#ifndef GSB_TVM_PARTS_H
#define GSB_TVM_PARTS_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Parts of a call at most: a compiled model has room for the barrier of so many. */
enum { GSB_MOST_PARTS = 64 };

/* One part of a call; `part` is 0 on the caller's thread. */
typedef void (*gsb_part_function)(void* argument, int32_t part, int32_t parts);

struct gsb_pool;

struct gsb_worker {
  struct gsb_pool* pool;
  pthread_t thread;
  int32_t part;
};

/* Numbers that several threads look at without the mutex are read and written by __atomic. */
struct gsb_pool {
  pthread_mutex_t mutex;
  pthread_cond_t started;  /* a call began, or the pool ends */
  pthread_cond_t finished; /* the last worker is done with a call */
  gsb_part_function function;
  void* argument;
  pid_t process;    /* fork leaves the workers behind */
  uint32_t call;    /* counts calls */
  uint32_t at_work; /* workers that are not yet done with it */
  int busy;
  int ends;
  int32_t workers;
  struct gsb_worker worker[GSB_MOST_PARTS - 1];
};

/* Rounds of looking before a thread sleeps: some 20 us, longer than waking one takes, so that calls
 * that follow each other closely find their threads awake. */
enum { GSB_ROUNDS = 2000 };

/* Tell the machine that this is a waiting loop. */
static inline void gsb_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* Wait until a call after number `seen` began, or the pool ends; return its number. */
static inline uint32_t gsb_pool_next(struct gsb_pool* pool, uint32_t seen) {
  for (int i = 0; i < GSB_ROUNDS; ++i) {
    uint32_t call = __atomic_load_n(&pool->call, __ATOMIC_ACQUIRE);
    if (call != seen) return call;
    gsb_pause();
  }
  pthread_mutex_lock(&pool->mutex);
  while (__atomic_load_n(&pool->call, __ATOMIC_ACQUIRE) == seen)
    pthread_cond_wait(&pool->started, &pool->mutex);
  pthread_mutex_unlock(&pool->mutex);
  return __atomic_load_n(&pool->call, __ATOMIC_ACQUIRE);
}

static inline void* gsb_pool_work(void* argument) {
  struct gsb_worker* worker = (struct gsb_worker*)argument;
  struct gsb_pool* pool = worker->pool;
  for (uint32_t seen = 0;;) {
    seen = gsb_pool_next(pool, seen);
    if (__atomic_load_n(&pool->ends, __ATOMIC_ACQUIRE)) return 0;
    pool->function(pool->argument, worker->part, pool->workers + 1);
    if (__atomic_sub_fetch(&pool->at_work, 1, __ATOMIC_ACQ_REL) == 0) {
      pthread_mutex_lock(&pool->mutex);
      pthread_cond_signal(&pool->finished);
      pthread_mutex_unlock(&pool->mutex);
    }
  }
}

/* Wake the workers for a new call, or for the end. */
static inline void gsb_pool_start(struct gsb_pool* pool) {
  pthread_mutex_lock(&pool->mutex);
  __atomic_add_fetch(&pool->call, 1, __ATOMIC_RELEASE);
  pthread_cond_broadcast(&pool->started);
  pthread_mutex_unlock(&pool->mutex);
}

static inline void gsb_pool_wait(struct gsb_pool* pool) {
  for (int i = 0; i < GSB_ROUNDS; ++i) {
    if (__atomic_load_n(&pool->at_work, __ATOMIC_ACQUIRE) == 0) return;
    gsb_pause();
  }
  pthread_mutex_lock(&pool->mutex);
  while (__atomic_load_n(&pool->at_work, __ATOMIC_ACQUIRE) != 0)
    pthread_cond_wait(&pool->finished, &pool->mutex);
  pthread_mutex_unlock(&pool->mutex);
}

/* End the threads and free the pool; null is allowed. Not while a call runs. */
static inline void gsb_pool_destroy(struct gsb_pool* pool) {
  if (!pool) return;
  if (pool->process == getpid()) {
    __atomic_store_n(&pool->ends, 1, __ATOMIC_RELEASE);
    gsb_pool_start(pool);
    for (int32_t i = 0; i < pool->workers; ++i) pthread_join(pool->worker[i].thread, 0);
    pthread_cond_destroy(&pool->finished);
    pthread_cond_destroy(&pool->started);
    pthread_mutex_destroy(&pool->mutex);
  } /* else the threads stayed with the parent, whose locks these are copies of */
  free(pool);
}

static inline int gsb_pool_init(struct gsb_pool* pool) {
  int error = pthread_mutex_init(&pool->mutex, 0);
  if (error) return error;
  error = pthread_cond_init(&pool->started, 0);
  if (!error) {
    error = pthread_cond_init(&pool->finished, 0);
    if (!error) return 0;
    pthread_cond_destroy(&pool->started);
  }
  pthread_mutex_destroy(&pool->mutex);
  return error;
}

/* Make a pool for calls in `threads` parts, 2 to GSB_MOST_PARTS, the caller's among them.
 *
 * Returns 0, EINVAL, ENOMEM, or EAGAIN where the system starts no more threads. Signals go to the
 * program's own threads. */
static inline int gsb_pool_create(struct gsb_pool** made, int threads) {
  *made = 0;
  if (threads < 2 || threads > GSB_MOST_PARTS) return EINVAL;
  struct gsb_pool* pool = (struct gsb_pool*)calloc(1, sizeof(struct gsb_pool));
  if (!pool) return ENOMEM;
  int error = gsb_pool_init(pool);
  if (error) {
    free(pool);
    return error;
  }
  pool->process = getpid();
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  /* A worker reads their number only in a call. */
  for (; pool->workers < threads - 1 && !error; pool->workers += !error) {
    struct gsb_worker* worker = &pool->worker[pool->workers];
    worker->pool = pool;
    worker->part = pool->workers + 1;
    error = pthread_create(&worker->thread, 0, gsb_pool_work, worker);
  }
  pthread_sigmask(SIG_SETMASK, &before, 0);
  if (error) {
    gsb_pool_destroy(pool);
    return error;
  }
  *made = pool;
  return 0;
}

/* Run `function` once for each part, all at the same time, and wait for all.
 *
 * Returns 0, EBUSY where another thread is in a call with this pool, or ECHILD in a process that
 * was forked from the one that made it. */
static inline int gsb_pool_run(struct gsb_pool* pool, gsb_part_function function, void* argument) {
  if (pool->process != getpid()) return ECHILD;
  if (__atomic_exchange_n(&pool->busy, 1, __ATOMIC_ACQUIRE)) return EBUSY;
  pool->function = function;
  pool->argument = argument;
  __atomic_store_n(&pool->at_work, (uint32_t)pool->workers, __ATOMIC_RELAXED);
  gsb_pool_start(pool);
  function(argument, 0, pool->workers + 1);
  gsb_pool_wait(pool);
  __atomic_store_n(&pool->busy, 0, __ATOMIC_RELEASE);
  return 0;
}

#ifdef __cplusplus
}
#endif

#endif
