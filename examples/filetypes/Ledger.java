package org.example.books;

import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** An append-only list of postings whose sum never falls below zero. */
public final class Ledger {
    private final List<BigDecimal> postings = new ArrayList<>();
    private BigDecimal balance = BigDecimal.ZERO;

    public synchronized void post(BigDecimal amount) {
        BigDecimal next = balance.add(amount);
        if (next.signum() < 0) {
            throw new IllegalStateException("overdrawn by " + next.negate());
        }
        postings.add(amount);
        balance = next;
    }

    public List<BigDecimal> postings() {
        return Collections.unmodifiableList(postings);
    }

    public static void main(String[] args) {
        Ledger ledger = new Ledger();
        ledger.post(new BigDecimal("12.50"));
        ledger.post(new BigDecimal("-2.50"));
        System.out.println(ledger.balance + " after " + ledger.postings().size() + " postings");
    }
}
