"""Publishers: who sends the rows of a run within its one transaction: the process of the run alone, or several.

With several, each is a process or a task with a producer of its own. All send under one producer id and epoch, so what
they send is one transaction of Kafka, which the driver, the process of the run, commits. An attempt has ten steps:

1. The driver looks at its lease, makes an attempt and opens its door, which carries a heartbeat. It starts publishers.
2. A publisher compares the cluster and the outputs with those of the run. It ends if the door is closed. It makes a
   producer with the job's transactional id and calls `init_transactions`, which gives it a (producer id, epoch).
   It checks that it could adopt another one, and announces itself under a random token.
3. The driver waits for all publishers, or for a time, and closes the door.
4. The driver makes another producer and calls `init_transactions`: now it has the newest (P, E). **Fence.**
5. It reads the ledger to its high watermark: is the run there, or another one? **Read.**
6. It checks source and outputs, and notes the settled ends of all outputs.
7. It says `go`: (P, E), and for each announced token the output partitions that no other one has.
8. A publisher adopts (P, E), begins, sends the rows of its partitions in order, compares them with the manifest, waits
   until each is acknowledged, and reports. It never commits, never aborts and sends no offsets.
9. With the report of every publisher the driver goes on as alone: dead letters, growth of the outputs, ledger record,
   offsets, commit. **Act.**
10. Anything else ends the attempt: the driver acts on the first publisher that fails or is missing. The next attempt
    begins with step 1.

Seven invariants keep guarantee 2 (all or nothing, exactly once), whatever is killed, frozen or late:

- **I1** Rows are sent only under the (P, E) of a driver's `init`, which is newer than that of every publisher.
- **I2** One epoch is one attempt and one transaction: nothing is begun again under it.
- **I3** The ledger is read after E was got, and a commit succeeds only while E is the newest.
- **I4** A partition has one publisher in an epoch: its sequence numbers are one writer's.
- **I5** At the commit every record of E is acknowledged: none is on its way.
- **I6** Only reports that name this attempt, and a token of its `go`, count.
- **I7** An attempt ends only by a new `init_transactions`, which fences and aborts, never by `abort_transaction`: that
  leaves E the newest where it does not raise the epoch, and a late publisher would write into the next transaction.

`base.py` has the door between a publish and its publishers, `alone.py` the one publisher, `crew.py` several, as the
driver sees them, `publisher.py` one of these. `rendezvous.py` is what both sides say, and `processes.py` carries it
between processes of one machine. `shares.py` divides partitions, `plan.py` decides how many publishers there are.
"""
