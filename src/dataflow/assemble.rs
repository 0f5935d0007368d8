//! Walks a plan and wires its dataflow: scans from inboxes, operators under drivers, the result
//! into its hub or subscription, a probe at the end.
//!
//! Where the plan has an operator that keeps state twice, with all that is below it (a CTE that is
//! read twice), there is one, and both readers get its output.

use std::cell::RefCell;
use std::rc::Rc;

use timely::container::NoopBuilder;
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::operator::Operator as _;
use timely::dataflow::operators::probe::{Handle, Probe};

use crate::dataflow::driver::{ChunkStream, DriverContext, drive};
use crate::dataflow::exchange::{Chunk, SentWatermark};
use crate::dataflow::hub::{Change, Hub, Inbox};
use crate::dataflow::operator::Operator;
use crate::dataflow::operators;
use crate::plan::node::{Edge, Exchange, Node, Phase, Plan};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::id::ObjectId;
use crate::types::time::{Epoch, Watermark};

/// Stands for logical time among the objects that dataflows scan; objects have other ids.
pub const CLOCK: ObjectId = ObjectId(0);

/// What assembling leaves for the worker.
pub struct Assembled {
    /// Passes an epoch when the dataflow has finished it, on all workers.
    pub probe: Handle<u64>,
    /// One inbox per scan.
    pub scans: Vec<Rc<RefCell<Inbox>>>,
    /// One inbox per constant, which has its rows.
    pub constants: Vec<Rc<RefCell<Inbox>>>,
}

/// Builds the dataflow of `plan`, ending in `result`, whose input is spread by `exchange` and whose
/// changes go to `hub`.
///
/// # Errors
/// When an operator refuses its node; nothing may then run on any worker, so plans are checked
/// with [`operators::check`] before they are sent.
pub fn assemble(
    scope: Scope<'_, u64>,
    plan: &Plan,
    result: Box<dyn Operator>,
    exchange: Exchange,
    hub: Rc<RefCell<Hub>>,
    context: &DriverContext,
) -> Result<Assembled> {
    let mut inboxes = Inboxes::default();
    let root = node_stream(scope, &plan.root, context, &mut inboxes, &mut Vec::new())?;
    let result = context.metrics.watch(result);
    let changes = drive(scope, vec![(root, exchange)], result, context.clone());
    let probe = export(changes, hub);
    let Inboxes { scans, constants } = inboxes;
    Ok(Assembled { probe, scans, constants })
}

/// Where a dataflow's rows come in.
#[derive(Default)]
struct Inboxes {
    scans: Vec<Rc<RefCell<Inbox>>>,
    constants: Vec<Rc<RefCell<Inbox>>>,
}

/// The columns of a plan's result that say on which worker a row is kept: what its state is spread
/// by when it is restored. Empty: all rows are on worker 0.
pub fn result_key(plan: &Plan) -> Vec<usize> {
    let all = || (0..plan.root.schema().fields().len()).collect();
    match result_exchange(plan) {
        Exchange::Hash(columns) => columns,
        Exchange::Single => vec![],
        // Of rows that never go it does not matter where they are.
        Exchange::Local if plan.root.append_only() => all(),
        Exchange::Local => placed_by_content(&plan.root).unwrap_or_else(all),
    }
}

/// How the rows of a plan's result are spread, so that a row and its deletion meet.
pub fn result_exchange(plan: &Plan) -> Exchange {
    if plan.root.append_only() || placed_by_content(&plan.root).is_some() {
        return Exchange::Local;
    }
    match &plan.unique_key {
        Some(key) if key.is_empty() => Exchange::Single,
        Some(key) => Exchange::Hash(key.clone()),
        None => Exchange::Hash((0..plan.root.schema().fields().len()).collect()),
    }
}

/// Output columns whose values alone decide on which worker a row of `node` is made.
fn placed_by_content(node: &Node) -> Option<Vec<usize>> {
    match node {
        Node::Aggregate(n) if n.input.exchange == Exchange::Hash(n.keys.clone()) => {
            Some((0..n.keys.len()).collect())
        }
        // Its last key is made where the others are.
        Node::Aggregate(n) if matches!(n.phase, Phase::Windows { .. }) => {
            let others: Vec<usize> = (0..n.keys.len() - 1).collect();
            (n.input.exchange == Exchange::Hash(others.clone())).then_some(others)
        }
        Node::Map(n) if n.input.exchange == Exchange::Local => {
            let below = placed_by_content(&n.input.input)?;
            match &n.projection {
                None => Some(below),
                Some(exprs) => below
                    .iter()
                    .map(|column| exprs.iter().position(|e| e.as_column() == Some(*column)))
                    .collect(),
            }
        }
        _ => None,
    }
}

/// `built` are the operators with state so far.
fn node_stream<'scope, 'plan>(
    scope: Scope<'scope, u64>,
    node: &'plan Node,
    context: &DriverContext,
    inboxes: &mut Inboxes,
    built: &mut Vec<(&'plan Node, ChunkStream<'scope>)>,
) -> Result<ChunkStream<'scope>> {
    if node.keeps_state()
        && let Some((_, stream)) = built.iter().find(|(other, _)| *other == node)
    {
        return Ok(stream.clone());
    }
    if let Node::Scan(scan) = node {
        let here = context.indexes.arrangements.contains_key(&scan.object);
        if scan.index.is_some() && !here {
            return Err(Error::internal(format!("index {} does not run", scan.name)));
        }
        let inbox = Inbox::new(scan.object, scan.columns.clone(), context.as_of);
        let inbox = Rc::new(RefCell::new(inbox));
        inboxes.scans.push(inbox.clone());
        return Ok(scan_stream(scope, inbox, context));
    }
    if let Node::Clock(_) = node {
        let inbox = Rc::new(RefCell::new(Inbox::new(CLOCK, vec![], context.as_of)));
        inboxes.scans.push(inbox.clone());
        return Ok(scan_stream(scope, inbox, context));
    }
    let mut inputs = Vec::new();
    for Edge { input, exchange } in node.inputs() {
        let stream = node_stream(scope, input, context, inboxes, built)?;
        inputs.push((stream, exchange.clone()));
    }
    if let Node::Constant(constant) = node {
        let columns = (0..constant.rows.num_columns()).collect();
        let mut inbox = Inbox::new(ObjectId(0), columns, context.as_of);
        // Who begins with a state has seen the rows.
        if context.worker == 0 && context.restore.is_none() {
            inbox.push(context.as_of, ChangeBatch::inserts(constant.rows.clone()));
        }
        inbox.push_watermark(context.as_of, Watermark::END);
        let inbox = Rc::new(RefCell::new(inbox));
        inboxes.constants.push(inbox.clone());
        return Ok(scan_stream(scope, inbox, context));
    }
    let operator =
        context.metrics.watch(operators::build_over(node, context.worker, &context.indexes)?);
    let stream = drive(scope, inputs, operator, context.clone());
    if node.keeps_state() {
        built.push((node, stream.clone()));
    }
    Ok(stream)
}

/// The head of a dataflow: sends what is in the inbox, and lets epochs pass as it is told.
fn scan_stream<'scope>(
    scope: Scope<'scope, u64>,
    inbox: Rc<RefCell<Inbox>>,
    context: &DriverContext,
) -> ChunkStream<'scope> {
    let counters = context.metrics.count();
    let mut builder = OperatorBuilder::new("scan".to_owned(), scope);
    let activator = scope.activator_for(builder.operator_info().address);
    inbox.borrow_mut().on_change(move || activator.activate());
    let (output, stream) = builder.new_output();
    let mut output: OutputBuilder<u64, NoopBuilder<Chunk>> = OutputBuilder::from(output);
    let (as_of, worker, workers) = (context.as_of, context.worker, context.workers);
    builder.build(move |mut capabilities| {
        let mut capability = capabilities.pop().expect("one output has one capability");
        capability.downgrade(&as_of.0);
        move |_frontiers| {
            let mut inbox = inbox.borrow_mut();
            let mut handle = output.activate();
            for (epoch, change) in inbox.take() {
                let mut chunk = match change {
                    Change::Rows(batch) => Chunk { batches: vec![batch], watermarks: vec![] },
                    Change::Watermark(watermark) => Chunk {
                        batches: vec![],
                        watermarks: vec![SentWatermark::to_all(watermark, worker, workers)],
                    },
                };
                counters.add_rows_out(chunk.batches.iter().map(ChangeBatch::num_rows).sum());
                let at = capability.delayed(&epoch.0);
                handle.session_with_builder(&at).give_container(&mut chunk);
            }
            capability.downgrade(&inbox.frontier().0);
            counters.finish(Epoch(inbox.frontier().0.saturating_sub(1)));
        }
    });
    stream
}

/// The tail of a dataflow: its changes go to whoever reads the object.
fn export(changes: ChunkStream<'_>, hub: Rc<RefCell<Hub>>) -> Handle<u64> {
    let done: ChunkStream<'_> =
        changes.unary::<NoopBuilder<Chunk>, _, _, _>(Pipeline, "export", move |_, _| {
            move |input, _output| {
                input.for_each(|capability, chunk| {
                    let epoch = *capability.least().expect("a message is sent at one epoch");
                    let Chunk { batches, watermarks } = std::mem::take(chunk);
                    let mut hub = hub.borrow_mut();
                    for batch in batches {
                        hub.push(Epoch(epoch), &batch, None)
                            .expect("readers want columns that the object has");
                    }
                    for sent in watermarks {
                        hub.announce(Epoch(epoch), sent.watermark);
                    }
                });
            }
        });
    let (probe, _) = done.probe();
    probe
}
