use std::future;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::*;

const LONG: Duration = Duration::from_secs(3600);

async fn bounded(wait: impl Future<Output = ()>) {
    let waited = tokio::time::timeout(LONG, wait).await;
    waited.expect("the wait ends");
}

#[tokio::test(start_paused = true)]
async fn finished_tasks_leave_nothing_behind() {
    let tasks = Tasks::new();
    for _ in 0..10_000 {
        tasks.spawn("short", future::ready(()));
    }
    assert_eq!(tasks.len(), 10_000);
    assert!(tasks.finish_within(LONG).await);
    assert!(tasks.is_empty());
    assert!(tasks.owner.shared.table().running.capacity() <= 4 * KEPT_CAPACITY);
    assert_eq!(Arc::strong_count(&tasks.owner.shared), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_counted_and_ends_only_its_task() {
    let tasks = Tasks::new();
    let (go_on, told) = oneshot::channel();
    tasks.spawn("sibling", async { told.await.unwrap() });
    tasks.spawn("at once", async { panic!("on purpose: {}", 1) });
    tasks.spawn("later", async {
        tokio::task::yield_now().await;
        panic!("on purpose");
    });
    assert!(!tasks.finish_within(Duration::from_secs(1)).await);
    assert_eq!((tasks.panics(), tasks.len()), (2, 1));
    go_on.send(()).unwrap();
    assert!(tasks.finish_within(LONG).await);
    assert_eq!(tasks.panics(), 2);
}

#[tokio::test(start_paused = true)]
async fn waits_no_longer_than_the_deadline_and_leaves_the_rest_running() {
    let tasks = Tasks::new();
    let (ended, end) = oneshot::channel();
    tasks.spawn("slow", async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        ended.send(()).unwrap();
    });
    let start = Instant::now();
    assert!(!tasks.finish_within(Duration::from_secs(5)).await);
    assert_eq!(start.elapsed().as_secs(), 5);
    assert!(tasks.finish_within(LONG).await);
    assert_eq!(start.elapsed().as_secs(), 20);
    end.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn aborted_futures_are_dropped_and_new_tasks_are_welcome() {
    let tasks = Tasks::new();
    let kept = Arc::new(());
    for _ in 0..3 {
        let held = Arc::clone(&kept);
        tasks.spawn("idle", async move {
            future::pending::<()>().await;
            drop(held);
        });
    }
    assert_eq!(tasks.abort_all(), 3);
    assert!(tasks.finish_within(LONG).await);
    assert_eq!(Arc::strong_count(&kept), 1);
    assert_eq!(tasks.panics(), 0);

    let (done, was_done) = oneshot::channel();
    tasks.spawn("next", async { done.send(()).unwrap() });
    was_done.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_clone_ends_the_tasks() {
    let tasks = Tasks::new();
    let clone = tasks.clone();
    let (kept, dropped) = oneshot::channel::<()>();
    tasks.spawn("idle", async {
        future::pending::<()>().await;
        drop(kept);
    });
    drop(tasks);
    tokio::task::yield_now().await;
    assert_eq!(clone.len(), 1);
    drop(clone);
    let ended = tokio::time::timeout(LONG, dropped).await;
    ended.expect("the task is aborted").unwrap_err();
}

#[test]
fn a_runtime_that_ends_empties_the_table() {
    let tasks = Tasks::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async { tasks.spawn("idle", future::pending()) });
    assert_eq!(tasks.len(), 1);
    drop(runtime);
    assert!(tasks.is_empty());
}

#[test]
fn wrapping_adds_four_words_to_a_future() {
    let bare = future::pending::<()>();
    let tasks = Tasks::new();
    let entry = Entry::new(&tasks.owner.shared, "measured");
    let owned = Owned {
        future: bare,
        entry,
    };
    assert!(size_of_val(&owned) <= 4 * size_of::<usize>());
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_end_may_be_dropped_and_begun_again() {
    let tasks = Tasks::new();
    bounded(tasks.emptied()).await;
    let (go_on, told) = oneshot::channel::<()>();
    tasks.spawn("first", async { told.await.unwrap() });
    for _ in 0..3 {
        tokio::select! {
            biased;
            () = tasks.emptied() => panic!("a task is left"),
            () = tokio::task::yield_now() => {}
        }
    }
    go_on.send(()).unwrap();
    bounded(tasks.emptied()).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_spawned_during_the_wait_counts() {
    let tasks = Tasks::new();
    let parent = tasks.clone();
    let start = Instant::now();
    tasks.spawn("parent", async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        parent.spawn("child", tokio::time::sleep(Duration::from_secs(2)));
    });
    bounded(tasks.emptied()).await;
    assert_eq!(start.elapsed().as_secs(), 3);
    assert!(tasks.finish_within(Duration::ZERO).await);
}
