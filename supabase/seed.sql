-- The default budgets: a start to adapt. Apply with `supabase db push --include-seed`, or `vital-tracking migrate --seed`.
-- Budgets that are there already stay as they are.

insert into public.budget_limits (entity_type, entity_id, daily_limit, monthly_limit, action) values
('organization', 'mvp', 50, 500, 'alert'),
('service', '1:1_conversation', 5, 100, 'alert'),
('service', 'virtual_panel', 10, 200, 'alert'),
('service', 'workflow', 15, 300, 'alert'),
('service', 'solution_builder', 20, 400, 'alert'),
('tier', 'tier_1', 30, 600, 'alert'),
('tier', 'tier_2', 15, 300, 'throttle'),
('tier', 'tier_3', 5, 100, 'downgrade'),
('user', '*', 5, 100, 'alert')
on conflict on constraint budget_limits_one_an_action do nothing;
