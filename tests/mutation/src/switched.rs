//! A source file with all its mutants in it, each behind a switch.
//!
//! `a + b` becomes `(if on(7) { (a - b) } else if on(8) { (a * b) } else { (a + b) })`.
//! Only one switch is on at a time, so operands inside a mutant are the file's own.

use std::collections::BTreeMap;
use std::ops::Range;

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Arm, BinOp, Expr, ImplItemFn, ItemFn, TraitItemFn, UnOp};

use crate::mutants::{Genre, Mutant, Place};

/// What is asked whether a mutant is on; see [`MODULE`].
const ON: &str = "crate::mutation::on";

/// The module that `lib.rs` of a switched crate gets.
///
/// `MUTANT=7` switches number 7 on; `MUTANT_REACH=FILE` has the numbers that are
/// reached written to FILE, each once. What the compiler evaluates is never mutated.
pub const MODULE: &str = include_str!("../switch.rs.txt");

/// A file's text with switches.
pub struct Switched {
    pub text: String,
    /// Where each mutant stands in `text`.
    variants: Vec<(Range<usize>, usize)>,
    /// Places with switches, and whose.
    nodes: Vec<(Range<usize>, Vec<usize>)>,
}

impl Switched {
    /// The mutants that an error at these bytes is to be blamed on: the one in whose
    /// text it is, or all of the innermost place around it.
    pub fn blamed(&self, bytes: &Range<usize>) -> Vec<usize> {
        let around = |range: &Range<usize>| range.start <= bytes.start && bytes.end <= range.end;
        let innermost = |variants: &mut dyn Iterator<Item = Range<usize>>| {
            variants
                .filter(|range| around(range))
                .min_by_key(Range::len)
        };
        let variant = innermost(&mut self.variants.iter().map(|(range, _)| range.clone()));
        let node = innermost(&mut self.nodes.iter().map(|(range, _)| range.clone()));
        let Some(node) = node else {
            return Vec::new();
        };
        match variant {
            Some(variant) if variant.len() <= node.len() => self
                .variants
                .iter()
                .filter(|(range, _)| *range == variant)
                .map(|(_, id)| *id)
                .collect(),
            _ => self
                .nodes
                .iter()
                .filter(|(range, _)| *range == node)
                .flat_map(|(_, ids)| ids.clone())
                .collect(),
        }
    }
}

enum Kind {
    /// The operator's bytes.
    Binary(Range<usize>),
    Unary(Range<usize>),
    /// The start of a function's statements.
    Body,
    /// The end of an arm's pattern; the arm has no guard.
    Pattern,
    /// A guard; ids with an empty replacement delete the arm.
    Guard,
}

struct Node {
    bytes: Range<usize>,
    kind: Kind,
    ids: Vec<usize>,
}

/// `source`, a file of `mutants` (with their numbers), all behind switches. What has no
/// place for a switch is missing from the second value.
pub fn switch(source: &str, mutants: &[(usize, &Mutant)]) -> syn::Result<(Switched, Vec<usize>)> {
    let file = syn::parse_file(source)?;
    let mut places = Places {
        lines: std::iter::once(0)
            .chain(source.match_indices('\n').map(|(at, _)| at + 1))
            .collect(),
        source,
        wanted: BTreeMap::new(),
        nodes: Vec::new(),
    };
    for &(id, mutant) in mutants {
        places
            .wanted
            .entry((mutant.span.start, kind_key(mutant.genre)))
            .or_default()
            .push(id);
    }
    places.visit_file(&file);
    let mut nodes = places.nodes;
    // What begins a body before its first expression, outer before inner.
    nodes.sort_by_key(|node| {
        let inside = !matches!(node.kind, Kind::Body);
        (node.bytes.start, inside, usize::MAX - node.bytes.end)
    });
    let placed = nodes.iter().flat_map(|node| node.ids.clone()).collect();
    let mut writer = Writer {
        source,
        mutants: mutants.iter().copied().collect(),
        out: Switched {
            text: String::new(),
            variants: Vec::new(),
            nodes: Vec::new(),
        },
    };
    writer.range(0..source.len(), &nodes);
    Ok((writer.out, placed))
}

fn kind_key(genre: Genre) -> u8 {
    genre as u8
}

struct Places<'a> {
    source: &'a str,
    lines: Vec<usize>,
    wanted: BTreeMap<(Place, u8), Vec<usize>>,
    nodes: Vec<Node>,
}

impl Places<'_> {
    fn byte(&self, place: Place) -> usize {
        let line = self.lines[place.line - 1];
        line + self.source[line..]
            .chars()
            .take(place.column - 1)
            .map(char::len_utf8)
            .sum::<usize>()
    }

    fn bytes(&self, span: Span) -> Range<usize> {
        self.byte(span.start().into())..self.byte(span.end().into())
    }

    fn take(&mut self, start: proc_macro2::LineColumn, genre: Genre) -> Option<Vec<usize>> {
        self.wanted.remove(&(start.into(), kind_key(genre)))
    }

    fn body(&mut self, block: &syn::Block) {
        let Some(first) = block.stmts.first() else {
            return;
        };
        // Where the first token is, attributes and all.
        if let Some(ids) = self.take(first.span().start(), Genre::FnValue) {
            let at = self.byte(first.span().start().into());
            self.nodes.push(Node {
                bytes: at..at,
                kind: Kind::Body,
                ids,
            });
        }
    }
}

/// Whether a `let` stands in a condition, which parentheses would break.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Places<'_> {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.body(&item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.body(&item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(block) = &item.default {
            self.body(block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_expr(&mut self, expr: &'ast Expr) {
        match expr {
            Expr::Binary(binary) if !has_let(expr) => {
                let op: &BinOp = &binary.op;
                if let Some(ids) = self.take(op.span().start(), Genre::BinaryOperator) {
                    let op = self.bytes(op.span());
                    self.nodes.push(Node {
                        bytes: self.bytes(binary.left.span()).start
                            ..self.bytes(binary.right.span()).end,
                        kind: Kind::Binary(op),
                        ids,
                    });
                }
            }
            Expr::Unary(unary) => {
                let op: &UnOp = &unary.op;
                if let Some(ids) = self.take(op.span().start(), Genre::UnaryOperator) {
                    let op = self.bytes(op.span());
                    self.nodes.push(Node {
                        bytes: op.start..self.bytes(unary.expr.span()).end,
                        kind: Kind::Unary(op),
                        ids,
                    });
                }
            }
            _ => {}
        }
        visit::visit_expr(self, expr);
    }

    fn visit_arm(&mut self, arm: &'ast Arm) {
        let deleted = self.take(arm.span().start(), Genre::MatchArm);
        match &arm.guard {
            Some((_, guard)) => {
                let mut ids = self
                    .take(guard.span().start(), Genre::MatchArmGuard)
                    .unwrap_or_default();
                ids.extend(deleted.unwrap_or_default());
                if !ids.is_empty() {
                    let bytes = self.bytes(guard.span());
                    self.nodes.push(Node {
                        bytes,
                        kind: Kind::Guard,
                        ids,
                    });
                }
            }
            None => {
                if let Some(ids) = deleted {
                    let at = self.bytes(arm.pat.span()).end;
                    self.nodes.push(Node {
                        bytes: at..at,
                        kind: Kind::Pattern,
                        ids,
                    });
                }
            }
        }
        visit::visit_arm(self, arm);
    }
}

struct Writer<'a> {
    source: &'a str,
    mutants: BTreeMap<usize, &'a Mutant>,
    out: Switched,
}

impl Writer<'_> {
    /// The source in `range`, with those of `nodes` that lie in it.
    fn range(&mut self, range: Range<usize>, nodes: &[Node]) {
        let mut at = range.start;
        let mut i = 0;
        while let Some(node) = nodes.get(i) {
            let inside = at <= node.bytes.start && node.bytes.end <= range.end;
            if !inside {
                i += 1;
                continue;
            }
            self.copy(at..node.bytes.start);
            let end = node.bytes.end;
            let inner = &nodes[i + 1..];
            let within = inner
                .iter()
                .take_while(|inner| inner.bytes.start < end && inner.bytes.end <= end)
                .count();
            self.node(node, &inner[..within]);
            i += 1 + within;
            at = end;
        }
        self.copy(at..range.end);
    }

    fn copy(&mut self, range: Range<usize>) {
        self.out.text.push_str(&self.source[range]);
    }

    fn push(&mut self, text: &str) {
        self.out.text.push_str(text);
    }

    fn variant(&mut self, id: usize, text: &str) {
        let start = self.out.text.len();
        self.push(text);
        self.out.variants.push((start..self.out.text.len(), id));
    }

    fn node(&mut self, node: &Node, inner: &[Node]) {
        let start = self.out.text.len();
        let replacement = |writer: &Self, id: usize| writer.mutants[&id].replacement.clone();
        match &node.kind {
            Kind::Body => {
                for &id in &node.ids {
                    let value = replacement(self, id);
                    self.variant(id, &format!("if {ON}({id}) {{ return {value}; }} "));
                }
            }
            Kind::Binary(op) => {
                let left = self.source[node.bytes.start..op.start].to_owned();
                let right = self.source[op.end..node.bytes.end].to_owned();
                self.push("(");
                for &id in &node.ids {
                    let op = replacement(self, id);
                    self.variant(
                        id,
                        &format!("if {ON}({id}) {{ ({left}{op}{right}) }} else "),
                    );
                }
                self.push("{ (");
                self.range(node.bytes.clone(), inner);
                self.push(") })");
            }
            Kind::Unary(op) => {
                let operand = self.source[op.end..node.bytes.end].to_owned();
                self.push("(");
                for &id in &node.ids {
                    let op = replacement(self, id);
                    self.variant(id, &format!("if {ON}({id}) {{ ({op}{operand}) }} else "));
                }
                self.push("{ (");
                self.range(node.bytes.clone(), inner);
                self.push(") })");
            }
            Kind::Pattern => {
                self.push(" if ");
                for (i, &id) in node.ids.iter().enumerate() {
                    let and = if i == 0 { "" } else { " && " };
                    self.variant(id, &format!("{and}!{ON}({id})"));
                }
            }
            Kind::Guard => {
                self.push("(");
                for &id in &node.ids {
                    let value = match replacement(self, id) {
                        deleted if deleted.is_empty() => "false".to_owned(),
                        value => value,
                    };
                    self.variant(id, &format!("if {ON}({id}) {{ {value} }} else "));
                }
                self.push("{ (");
                self.range(node.bytes.clone(), inner);
                self.push(") })");
            }
        }
        let range = start..self.out.text.len();
        self.out.nodes.push((range, node.ids.clone()));
    }
}
