-- That a copy begins and ends is audited, as what else admins decide: with the first copy the tables get triggers and indexes, with the last
-- one they lose them. How far a copy has come is not.

create trigger exports_audit
after insert or delete on vital_private.exports
for each row execute function vital_private.audit_change('copy target', 'session');

create trigger exports_audit_truncate
after truncate on vital_private.exports
for each statement execute function vital_private.audit_truncate();
